"""The folder of one run: config.json, log.jsonl, the learnt file, the checkpoints and the sample grids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import BUCKET_OPTIONS, LEVEL_OPTIONS, TrainConfig, default_of, describe_changes, level_rule
from ..errors import ConfigError, DMPError
from ..storage import identity_of, refuse_existing, remove_partials, toml_text, write_json, write_text
from ..version import __version__
from .image_record import training_record
from .log import RunLog
from .run_settings import as_recorded_codec, read_run_settings, with_defaults

if TYPE_CHECKING:
    from ..data import ImageSource
    from .checkpoint import RunState
    from .methods import Trainee

# These options may change when a run is continued. A change of any other option would make it a different run.
_CHANGEABLE = {
    *("data", "steps", "log_every", "save_every", "sample_every", "keep", "workers", "max_bad", "max_bad_steps"),
    *("max_pixels", "max_file_size", "follow_links", "class_names"),
    *("store_dir", "half_frozen", "shard_backbone", "gradient_checkpointing", "offload_blocks"),
    *("micro_batch_size", "auto_micro_batch"),
    *("val_data", "val_every", "val_draws", "val_losses", "keep_best", "patience"),
}


TOML = "run.toml"
PAGE = "held-out.html"  # the page of the held-out loss
DRAWS = "held-out.csv"  # the loss of each draw of the newest measurement


class RunFolder:
    """The paths and files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.log_file = self.path / "log.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self._log = RunLog(self.log_file)
        self._identity: tuple[int, int] | None = None  # of the folder since it was opened
        self._saved: int | None = None  # the step of the last checkpoint

    def open(self, settings: dict[str, Any], *, resume: bool, force: bool) -> None:
        """Start a run with ``settings`` in the folder, or check that they can continue the run that it holds.

        Raises:
            ConfigError: the folder is in use and neither ``resume`` nor ``force`` is set, or it holds a run with other
                settings.
        """
        if resume and self.config_file.exists():
            self._check_same(settings)
        else:
            self.refuse_existing(settings, resume=resume, force=force)
            self._clear()
        write_json(self.config_file, settings)
        self._write_toml(settings)
        remove_partials(self.path)
        self._identity = identity_of(self.path)

    def _write_toml(self, settings: dict[str, Any]) -> None:
        """Write the options of the run as a file of ``--config``, which makes the same run in another folder."""
        table = {key.removesuffix("_").replace("_", "-"): value for key, value in settings.get("options", {}).items()}
        first = f"# dmp {__version__}: this makes the same run: dmp train --config {TOML} -o ANOTHER\n"
        write_text(self.path / TOML, first + toml_text({"train": table}))

    def read_settings(self) -> dict[str, Any] | None:
        """The content of ``config.json``, or None if there is no such file.

        Raises:
            ConfigError: the file is not valid JSON, or not as a run writes it.
        """
        return read_run_settings(self.config_file)

    def read_images(self) -> dict[str, Any] | None:
        """What the run that is there records of its images; None: there is no run. Raises as read_settings."""
        settings = self.read_settings()
        return None if settings is None else dict(settings.get("images") or {})

    def refuse_existing(self, settings: dict[str, Any], *, resume: bool, force: bool) -> None:
        """Raise ConfigError when the folder is in use and neither ``resume`` nor ``force`` is set.

        ``settings`` may still lack what the backbone and the images say. The error says whether they can continue the
        run that is there.
        """
        if force or (resume and self.config_file.exists()):
            return
        if not self.config_file.exists():
            refuse_existing(self.path, force=False)
            return
        try:
            changed = self._changes(settings)
        except ConfigError:  # its settings cannot be read
            changed = "settings that cannot be read"
        if changed:
            raise ConfigError(
                f"{self.path} exists already, and holds a run with other settings: {changed}",
                hint="Give another output with -o, or replace the run with --force.",
            )
        raise ConfigError(
            f"{self.path} exists already, and holds a run that can go on",
            hint="Continue it with --resume, give another output with -o, or replace the run with --force.",
        )

    def _check_same(self, settings: dict[str, Any]) -> None:
        changed = self._changes(settings)
        if changed:
            raise ConfigError(
                f"{self.path} holds a run with other settings: {changed}; these options cannot continue it",
                hint="Leave these options out to continue the run, or start a new run with another -o.",
            )

    def _changes(self, settings: dict[str, Any]) -> str:
        """What of ``settings`` cannot continue the run that is there, in words, with both values."""
        before = with_defaults(self.read_settings() or {}, source=self.config_file)
        old, new = before.get("train", {}), settings["train"]
        # A cosine schedule depends on the number of steps.
        changeable = _CHANGEABLE if new.get("lr_schedule") == "constant" else _CHANGEABLE - {"steps"}
        options = {key: new[key] for key in new if key not in changeable}
        others: dict[str, Any] = {
            key: settings[key]
            for key in ("patch", "backbone", "codec", "images", "drawn_levels", "text_store")
            if key in settings
        }
        if "codec" in others:
            others["codec"] = as_recorded_codec(settings["codec"], before.get("codec"))
        if before.get("held_out") is not None and "held_out" in settings:  # a run may begin to hold out later
            others["held_out"] = settings["held_out"]
        earlier = {**{key: old.get(key) for key in options}, **{key: before.get(key) for key in others}}
        return describe_changes(earlier, {**options, **others})

    def _clear(self) -> None:
        import shutil

        kinds = ("", "-ema", "-best")
        for folder in (self.checkpoints, self.samples, *(self.path / f"adapter{kind}" for kind in kinds)):
            shutil.rmtree(folder, ignore_errors=True)
        learnt = (f"{stem}{kind}.safetensors" for stem in ("patch", "backbone", "tuned") for kind in kinds)
        for name in ("log.jsonl", PAGE, DRAWS, *learnt):
            (self.path / name).unlink(missing_ok=True)

    def load_state(self, *, warn: Callable[[str], None]) -> RunState | None:
        """The newest checkpoint that is not damaged; see :func:`checkpoint.load_newest`."""
        from .checkpoint import load_newest

        state = load_newest(self.checkpoints, warn=warn)
        self._saved = None if state is None else state.step
        return state

    def save(self, state: RunState, trainee: Trainee, *, images: ImageSource, config: TrainConfig) -> None:
        """Write a checkpoint of ``state``, then the learnt file and, if there is one, the file of its average."""
        from .checkpoint import save_state

        self._check_there()
        save_state(self.checkpoints, state, keep=config.keep)
        self._saved = state.step
        training = _training_record(state.step, images, config, trainee)
        trainee.write(self.learnt_file(trainee), state.learnt, training)
        if state.ema:
            trainee.write(self.learnt_file(trainee, ema=True), state.ema, {**training, "average": config.ema})

    def save_best(self, state: RunState, trainee: Trainee, *, images: ImageSource, config: TrainConfig) -> None:
        """Write what was learnt at the lowest held-out loss so far."""
        self._check_there()
        path = self.learnt_file(trainee, best=True)
        trainee.write(path, state.learnt, _training_record(state.step, images, config, trainee))

    def learnt_file(self, trainee: Trainee, *, ema: bool = False, best: bool = False) -> Path:
        """Path of the learnt file: ``patch.safetensors``, ``backbone-ema.safetensors``, the folder ``adapter``, ..."""
        return self.path / f"{trainee.file_stem}{'-ema' if ema else '-best' if best else ''}{trainee.file_suffix}"

    def held_out_lines(self) -> list[tuple[int, dict[str, Any]]]:
        """The measurements of the held-out loss in the log: step and entry of each."""
        return self._log.held_out()

    def write_draws(self, table: str) -> None:
        """Keep the loss of each draw of a measurement, in place of that of an earlier one."""
        self._check_there()
        write_text(self.path / DRAWS, table)

    def log(self, line: dict[str, Any]) -> None:
        """Append one line to ``log.jsonl``. Raises DMPError when it cannot be written."""
        self._check_there()
        self._log.add(line)

    def warn_of_damaged_log(self, *, warn: Callable[[str], None]) -> None:
        """Say what is damaged in ``log.jsonl`` and will be dropped."""
        self._log.warn_of_damage(warn=warn)

    def cut_log(self, *, after: int) -> None:
        """Remove the log lines of steps after ``after``, which a continued run does again, and damaged lines."""
        self._log.cut(after=after)

    def _check_there(self) -> None:
        """Raise DMPError if the folder that was opened is gone or another one: half of a run would be written."""
        if self._identity is not None and identity_of(self.path) != self._identity:
            saved = "nothing was saved" if self._saved is None else f"its last checkpoint was of step {self._saved}"
            raise DMPError(
                f"{self.path} was removed or replaced while the run went on; {saved}",
                hint="Bring the folder back and continue with --resume, or start again.",
            )


def _training_record(step: int, images: ImageSource, config: TrainConfig, trainee: Trainee) -> dict[str, Any]:
    left_out = _CHANGEABLE | {"val_part", "val_seed"}
    left_out -= {"data", "steps", "micro_batch_size"}  # these options do not influence the learnt values
    if not config.val_split:
        left_out |= {"val_split"}
    if config.method not in ("lora", "dora"):
        left_out |= {"lora_rank", "lora_targets"}
    left_out |= {name for name in ("quantize", "encoder_dropout") if not getattr(config, name)}
    left_out |= {
        name for name in (*LEVEL_OPTIONS, *BUCKET_OPTIONS) if getattr(config, name) == default_of(TrainConfig, name)
    }
    fields, rule = config.model_dump(mode="json", exclude=left_out), level_rule(config, trainee.backbone.level_rule)
    return {
        **fields,
        "data": config.data.name.encode("utf-8", "backslashreplace").decode(),
        "data_fingerprint": images.fingerprint,
        "num_images": len(images),
        **training_record(images),
        **({} if rule.is_plain else {"drawn_levels": rule.model_dump()}),
        "steps_done": step,
        "dmp": __version__,
    }
