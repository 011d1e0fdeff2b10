"""TensorBoard, wandb, trackio and mlflow, as accelerate names them, behind the same five calls.

What their own variables say is theirs to follow: WANDB_MODE=offline, TRACKIO_DIR, MLFLOW_TRACKING_URI and the like.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ...errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

PROJECT = "dmp"  # the project or experiment, where no variable names one
NAMES = "trackers"  # in the run's folder: a file for each tracker, with the name by which it knows the run
_LONGEST = 500  # letters of a parameter of mlflow


class NewRun(NamedTuple):
    """A run as it begins."""

    path: Path
    config: Mapping[str, Any]
    goes_on: bool  # whether it continues one that may be known


class Kind(Protocol):
    """One tracker. ``begin`` comes first and ``finish`` last, and all come from one thread."""

    def begin(self, new: NewRun) -> None: ...

    def scalars(self, values: Mapping[str, float], step: int) -> None: ...

    def histograms(self, values: Mapping[str, np.ndarray], step: int) -> None: ...

    def image(self, name: str, png: bytes, step: int) -> None: ...

    def finish(self) -> None: ...


class TensorBoard:
    """Event files in ``RUN/tensorboard``."""

    def begin(self, new: NewRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(new.path / "tensorboard"))
        text = json.dumps(new.config, indent=2, default=str)
        self.writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()), 0)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def histograms(self, values: Mapping[str, np.ndarray], step: int) -> None:
        for name, array in values.items():
            self.writer.add_histogram(name, array, step)

    def image(self, name: str, png: bytes, step: int) -> None:
        import numpy as np

        self.writer.add_image(name, np.asarray(_picture(png)), step, dataformats="HWC")

    def finish(self) -> None:
        self.writer.close()


class _Logging:
    """A tracker whose run has ``log(values, step=...)``, as wandb's and trackio's."""

    library: Any
    run: Any

    def begin(self, new: NewRun) -> None:
        raise NotImplementedError

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def histograms(self, values: Mapping[str, np.ndarray], step: int) -> None:
        self.run.log({name: self.library.Histogram(array.ravel()) for name, array in values.items()}, step=step)

    def image(self, name: str, png: bytes, step: int) -> None:
        self.run.log({name: self.library.Image(_picture(png))}, step=step)

    def finish(self) -> None:
        self.run.finish()


class WandB(_Logging):
    """Weights & Biases; a continued run goes on there too."""

    def begin(self, new: NewRun) -> None:
        import wandb

        self.library = wandb
        known = known_name(new, "wandb", lambda: uuid.uuid4().hex[:8])
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", new.path.name),
            id=known,
            resume="allow",
            dir=str(new.path),
            config=dict(new.config),
            settings=wandb.Settings(console="off"),  # what a command prints is not the run's
        )


class Trackio(_Logging):
    """trackio, which keeps runs in a folder of this machine; a continued run goes on under the same name."""

    def begin(self, new: NewRun) -> None:
        import trackio

        self.library = trackio
        known = known_name(new, "trackio", lambda: f"{new.path.name}-{uuid.uuid4().hex[:8]}")
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self.run = trackio.init(project=project, name=known, config=dict(new.config), resume="allow", embed=False)


class MLflow:
    """mlflow: parameters, metrics, and histograms and pictures as artifacts."""

    def begin(self, new: NewRun) -> None:
        import mlflow

        self.library: Any = mlflow
        if "MLFLOW_EXPERIMENT_NAME" not in os.environ and "MLFLOW_EXPERIMENT_ID" not in os.environ:
            self.library.set_experiment(PROJECT)
        known = known_name(new, "mlflow", lambda: "") or None
        run = self.library.start_run(run_id=known, run_name=None if known else new.path.name)
        known_name(new, "mlflow", lambda: run.info.run_id)
        if known is None:
            told = {name: str(value)[:_LONGEST] for name, value in flat(new.config).items()}
            for begin in range(0, len(told), 100):  # the most that one call takes
                self.library.log_params(dict(list(told.items())[begin : begin + 100]))
            self.library.log_dict(dict(new.config), "config.json")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.library.log_metrics(dict(values), step=step)

    def histograms(self, values: Mapping[str, np.ndarray], step: int) -> None:
        import numpy as np

        counted = {name: np.histogram(array, bins=64) for name, array in values.items()}
        told = {name: {"counts": counts.tolist(), "edges": edges.tolist()} for name, (counts, edges) in counted.items()}
        self.library.log_dict(told, f"gates/step-{step:08d}.json")

    def image(self, name: str, png: bytes, step: int) -> None:
        self.library.log_image(_picture(png), f"{name}/step-{step:08d}.png")

    def finish(self) -> None:
        self.library.end_run()


KINDS: dict[str, type[Kind]] = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio, "mlflow": MLflow}
_IMPORTED = {"tensorboard": "torch.utils.tensorboard"}


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError where the library of a tracker is not there, or cannot be imported."""
    for name in names:
        try:
            importlib.import_module(_IMPORTED.get(name, name))
        except Exception as error:
            missing = isinstance(error, ModuleNotFoundError)
            why = "which is not installed" if missing else f"whose import ends in {type(error).__name__}: {error}"
            hint = f"pip install {name}, or 'dmp-cli[track]' for all trackers."
            raise ConfigError(f"--track {name} needs the library {name}, {why}", hint=hint) from error


def flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A nested record as one level: ``train.lr`` and so on."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


def known_name(new: NewRun, tracker: str, fresh: Any) -> str:
    """By which name ``tracker`` knows the run: that of the run that goes on, else what ``fresh()`` makes."""
    from ...storage import read_object, write_json

    file = new.path / NAMES / f"{tracker}.json"
    known = read_object(file, kind=ConfigError).get("name") if new.goes_on and file.exists() else None
    if isinstance(known, str):
        return known
    made = str(fresh())
    if made:
        write_json(file, {"name": made})
    return made


def _picture(png: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(png)).convert("RGB")
