"""The folder of one run: config.json, log.jsonl, the learnt file, the checkpoints and the sample grids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Frozen, PatchConfig, TrainConfig, build
from ..errors import ConfigError
from ..storage import refuse_existing, remove_partials, write_json, write_text
from ..version import __version__

if TYPE_CHECKING:
    from ..data import ImageSource
    from .checkpoint import RunState
    from .methods import Trainee

# These options may change when a run is continued. A change of any other option would make it a different run.
_CHANGEABLE = {
    *("data", "steps", "log_every", "save_every", "sample_every", "keep", "workers", "max_bad", "max_bad_steps"),
    *("store_dir", "half_frozen", "shard_backbone", "gradient_checkpointing"),
}


class RunFolder:
    """The paths and files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.log_file = self.path / "log.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"

    def open(self, settings: dict[str, Any], *, resume: bool, force: bool) -> None:
        """Start a run with ``settings`` in the folder, or check that they can continue the run that it holds.

        Raises:
            ConfigError: the folder is in use and neither ``resume`` nor ``force`` is set, or it holds a run with other
                settings.
        """
        if resume and self.config_file.exists():
            self._check_same(settings)
        else:
            refuse_existing(self.path, force=force)
            self._clear()
        write_json(self.config_file, settings)
        remove_partials(self.path)

    def read_settings(self) -> dict[str, Any] | None:
        """The content of ``config.json``, or None if there is no such file.

        Raises:
            ConfigError: the file is not valid JSON.
        """
        if not self.config_file.exists():
            return None
        try:
            return json.loads(self.config_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{self.config_file} is not valid JSON: {error}") from error

    def _check_same(self, settings: dict[str, Any]) -> None:
        before = _with_defaults(self.read_settings() or {})
        old, new = before.get("train", {}), settings["train"]
        # A cosine schedule depends on the number of steps.
        changeable = _CHANGEABLE if new.get("lr_schedule") == "constant" else _CHANGEABLE - {"steps"}
        changed = [key for key in new if key not in changeable and old.get(key) != new[key]]
        changed += [key for key in ("patch", "backbone", "codec", "images") if before.get(key) != settings[key]]
        if changed:
            raise ConfigError(
                f"{self.path} holds a run with other settings: {', '.join(changed)}; these options cannot continue it",
                hint="Leave these options out to continue the run, or start a new run with another -o.",
            )

    def _clear(self) -> None:
        import shutil

        for folder in (self.checkpoints, self.samples, self.path / "adapter", self.path / "adapter-ema"):
            shutil.rmtree(folder, ignore_errors=True)
        learnt = (f"{stem}{average}.safetensors" for stem in ("patch", "backbone") for average in ("", "-ema"))
        for name in ("log.jsonl", *learnt):
            (self.path / name).unlink(missing_ok=True)

    def load_state(self, *, warn: Callable[[str], None]) -> RunState | None:
        """The newest checkpoint that is not damaged; see :func:`checkpoint.load_newest`."""
        from .checkpoint import load_newest

        return load_newest(self.checkpoints, warn=warn)

    def save(self, state: RunState, trainee: Trainee, *, images: ImageSource, config: TrainConfig) -> None:
        """Write a checkpoint of ``state``, then the learnt file and, if there is one, the file of its average."""
        from .checkpoint import save_state

        save_state(self.checkpoints, state, keep=config.keep)
        training = _training_record(state.step, images, config)
        trainee.write(self.learnt_file(trainee), state.learnt, training)
        if state.ema:
            trainee.write(self.learnt_file(trainee, ema=True), state.ema, {**training, "average": config.ema})

    def learnt_file(self, trainee: Trainee, *, ema: bool = False) -> Path:
        """Path of the learnt file: ``patch.safetensors``, ``backbone-ema.safetensors``, the folder ``adapter``, ..."""
        return self.path / f"{trainee.file_stem}{'-ema' if ema else ''}{trainee.file_suffix}"

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to ``log.jsonl``."""
        with open(self.log_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def cut_log(self, *, after: int) -> None:
        """Remove the log lines of steps after ``after``, which a continued run does again, and incomplete lines."""
        if not self.log_file.exists():
            return
        kept = []
        for line in self.log_file.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= after:
                    kept.append(line)
            except (ValueError, KeyError):
                continue
        write_text(self.log_file, "".join(line + "\n" for line in kept))


def _with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run; options that did not exist when it was started get their default values."""
    configs: dict[str, type[Frozen]] = {"train": TrainConfig, "patch": PatchConfig}
    filled = {
        key: build(config, **settings[key]).model_dump(mode="json")
        for key, config in configs.items()
        if isinstance(settings.get(key), dict)
    }
    return {**settings, **filled}


def _training_record(step: int, images: ImageSource, config: TrainConfig) -> dict[str, Any]:
    left_out = _CHANGEABLE - {"data", "steps"}  # these options do not influence the learnt values
    if config.method != "lora":
        left_out |= {"lora_rank", "lora_targets"}
    fields = config.model_dump(mode="json", exclude=left_out)
    return {
        **fields,
        "data": config.data.name,
        "data_fingerprint": images.fingerprint,
        "num_images": len(images),
        "steps_done": step,
        "dmp": __version__,
    }
