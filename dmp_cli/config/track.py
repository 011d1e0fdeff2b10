"""Which trackers show a run as it goes on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from .base import Options, option

Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]


def _split_all(value: Any) -> Any:
    """Names that are given several times, or joined by commas, each once."""
    words = [value] if isinstance(value, str) else list(value)
    names = [part.strip() for word in words for part in (word.split(",") if isinstance(word, str) else [word])]
    return tuple(dict.fromkeys(names))


class TrackOptions(Options):
    """Where ``dmp train`` is shown beside its own log."""

    track: Annotated[tuple[Tracker, ...], BeforeValidator(_split_all)] = option(
        "Show the run in tensorboard, wandb, trackio or mlflow too: numbers, histograms of the gates, sample grids and "
        "the config. Give several with commas, or the option again.",
        default=(),
        shown=False,
        metavar="NAME,NAME",
        again=True,
    )
    tensorboard: bool = option("Short for --track tensorboard.", "--tensorboard", default=False)

    @property
    def trackers(self) -> tuple[Tracker, ...]:
        """All that are asked for, each once."""
        short: tuple[Tracker, ...] = ("tensorboard",) if self.tensorboard else ()
        return tuple(dict.fromkeys((*short, *self.track)))
