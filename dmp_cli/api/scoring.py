"""``evaluate``: scores of samples against real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import EvalConfig, build
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..evaluation import Evaluation


def evaluate(
    samples: str | Path | Sequence[str | Path] | EvalConfig,
    reference: str | Path | None = None,
    *,
    device: str = "cpu",
    log: Callable[[str], None] | None = None,
    **options: Any,
) -> Evaluation:
    """Score folders of samples against real images, as ``dmp eval`` does; each is compared with the first one.

    Args:
        samples: a folder or zip of images, or several of them, the base first; or a whole :class:`EvalConfig`.
        reference: a folder of real images, or saved statistics (``.npz``).
        device: where features are computed.
        log: called with each remark on what goes on.
        options: further fields of :class:`EvalConfig`, such as ``metrics=("fid", "kid")`` and ``features="pixels"``.

    Returns:
        Scores with their spread, and where they come from: ``rows`` has one entry a folder, ``to_json()`` all.

    Raises:
        DataError: a folder holds no images.
        MetricError: a folder was damaged, the reference does not fit the samples, or a metric cannot be computed.
    """
    from ..evaluation import evaluate as score

    how: dict[str, Any] = {"device": device} | ({} if log is None else {"log": log})
    if isinstance(samples, EvalConfig):
        if reference is not None or options:
            raise ConfigError("evaluate(EvalConfig) takes no further options", hint="Put them into the config.")
        return score(samples, **how)
    if reference is None:
        raise ConfigError("no reference given", hint="Name a folder of real images: evaluate(samples, reference).")
    folders = [samples] if isinstance(samples, str | Path) else samples
    paths = tuple(Path(folder) for folder in folders)
    return score(build(EvalConfig, samples=paths, reference=Path(reference), **options), **how)
