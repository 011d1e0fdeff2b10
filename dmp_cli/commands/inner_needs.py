"""What the commands that a command runs will need, from their words: read as ``dmp`` itself would read them."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import JobOptions, PatchConfig, SampleConfig, SampleOptions, TrainConfig, TrainOptions, build
from ..errors import ConfigError, DMPError
from ..storage import in_bytes
from .console import Printer
from .options import Given
from .plans import UNCOUNTED, told_disk
from .written import WrittenByRun, pixels_of, written_by_images, written_by_run

if TYPE_CHECKING:
    from ..pipeline import Loaded
    from ..training import Need, Trainee

_PATCHED = ("dmp", "prompt-tuning")
_OF_NUMBERS = ("method", "lora_rank", "lora_targets", "gate_noise", "balance_load", "balance_losses")
_OF_MEMORY = (
    *("batch_size", "micro_batch_size", "gradient_checkpointing", "ema"),
    *("dtype", "half_frozen", "quantize", "offload_blocks"),
)


def read_words(command: Sequence[str], dmp: Any) -> Given:
    """What was given to an inner command, such as ``["train", "--steps", "3"]``; ``dmp`` is the root command.

    A scale that is yet to be chosen, W, counts as 1.
    """
    words = ["1" if word == "W" and command[at - 1] == "--against-scale" else word for at, word in enumerate(command)]
    inner = dmp.get_command(None, words[0])
    context = inner.make_context(words[0], words[1:])
    named = {key for key in context.params if context.get_parameter_source(key).name == "COMMANDLINE"}
    return Given({key: context.params[key] for key in named})


class InnerNeeds:
    """What commands of one network need, counted from their words: each kind of training once."""

    def __init__(self, loaded: Loaded, dmp: Any) -> None:
        """``loaded`` is the bare network of all commands, ``dmp`` the root command."""
        self._loaded, self._dmp = loaded, dmp
        self._learnt: dict[Any, int] = {}  # parameters that are learnt, by the options they depend on
        self._trained: dict[Any, Need | None] = {}  # memory of a training step, likewise
        self._drawn: dict[Any, Need | None] = {}  # memory of a denoising step, by images at once and precision

    def disk(self, commands: Sequence[Sequence[str]], *, jobs: JobOptions, digits: bool) -> dict[str, int]:
        """Bytes that these commands write for each purpose; logs, pages and pictures of them are not counted.

        Those that run at the same time, as ``jobs`` says, have a checkpoint to spare each. ``digits``: whether the
        embedded images are written first.
        """
        backbone = self._loaded.backbone
        at_once = jobs.jobs or (1 if jobs.cluster is None else len(commands))
        runs: dict[Path, WrittenByRun] = {}
        images, latents = 0, 0
        if digits:
            from ..demo import load_digits

            images = written_by_images(len(load_digits()[0]), pixels=8 * 8, tar=False)
        for name, given in self._read(commands):
            if name == "train":
                place, config = given.make(TrainOptions).output or Path(), given.make(TrainConfig)
                written = written_by_run(config, learnt=self._parameters(config, given))
                runs[place] = max(runs.get(place, written), written)  # one run goes on from point to point
            else:
                count, options = _drawing(given).num_images, given.make(SampleOptions)
                images += written_by_images(count, pixels=pixels_of(backbone, self._loaded.codec), tar=options.tar)
                latents += 4 * count * math.prod(backbone.sample_shape) if options.keep_latents else 0
        spare = sorted((run.spare for run in runs.values()), reverse=True)[:at_once]
        return {
            "images": images,
            "latents": latents,
            "checkpoints": sum(run.checkpoints for run in runs.values()) + sum(spare),
            "learnt": sum(run.learnt for run in runs.values()),
        }

    def memory(self, commands: Sequence[Sequence[str]]) -> dict[str, int | None]:
        """The most bytes that one command holds at once, in a training step and in a denoising step of the network.

        None: it cannot be counted. What none of the commands does is left out.
        """
        training, drawing = [], []
        for name, given in self._read(commands):
            if name == "train":
                config = given.make(TrainConfig)
                training.append(self._step_of(config, given))
            else:
                drawing.append(self._chunk_of(_drawing(given), against=given.make(SampleOptions).against))
        found = {"training": training, "sampling": drawing}
        return {what: _most(needs) for what, needs in found.items() if needs}

    def _read(self, commands: Sequence[Sequence[str]]) -> Iterator[tuple[str, Given]]:
        for command in commands:
            if command[0] in ("train", "sample"):
                yield command[0], read_words(command, self._dmp)

    def _trainee(self, config: TrainConfig, given: Given) -> Trainee:
        from ..training import prepare

        patch = given.make(PatchConfig) if config.method in _PATCHED else None
        return prepare(config, backbone=_unread(self._loaded), codec=self._loaded.codec, patch_config=patch)

    def _parameters(self, config: TrainConfig, given: Given) -> int:
        key = _options(config, given, _OF_NUMBERS)
        if key not in self._learnt:
            self._learnt[key] = self._trainee(config, given).num_learnt
        return self._learnt[key]

    def _step_of(self, config: TrainConfig, given: Given) -> Need | None:
        from ..training import count_loaded

        key = _options(config, given, (*_OF_NUMBERS, *_OF_MEMORY))
        if key not in self._trained:
            self._trained[key] = _counted(lambda: count_loaded(self._trainee(config, given), config))
        return self._trained[key]

    def _chunk_of(self, config: SampleConfig, *, against: str | None) -> Need | None:
        """A denoising step of the bare network, and of what it is drawn ``against``."""
        from ..training import Trainee, count_loaded_sampling, passes_of

        is_second = against is not None and Path(against).name.startswith("backbone")  # as a training names one
        joint = against is not None and not is_second
        guidance = None if config.prompts or config.prompt_file else config.guidance
        passes = passes_of(self._loaded.backbone, guidance=guidance, is_joint=joint)
        key = config.batch_size, config.dtype, passes, is_second
        if key not in self._drawn:
            backbone = _unread(self._loaded)
            trainee = Trainee(backbone, {}, [], backbone, self._loaded.codec, None, None)
            how = build(TrainConfig, data=Path(), dtype=config.dtype)
            need = _counted(lambda: count_loaded_sampling(trainee, how, images=config.batch_size, passes=passes))
            weights = sum(one.nbytes for one in self._loaded.backbone.parameters()) if is_second else 0
            self._drawn[key] = None if need is None else replace(need, peak=need.peak + weights)
        return self._drawn[key]


def _drawing(given: Given) -> SampleConfig:
    # The options that name files of prompts and plans are other fields of the record.
    return given.make(SampleConfig, prompts=None, plan=None)


def _options(config: TrainConfig, given: Given, names: Sequence[str]) -> Any:
    patch = given.make(PatchConfig).model_dump_json() if config.method in _PATCHED else None
    return tuple(str(getattr(config, name)) for name in names), patch


def _counted(count: Callable[[], Need]) -> Need | None:
    with contextlib.suppress(DMPError):
        return count()
    return None


def _most(needs: Sequence[Need | None]) -> int | None:
    peaks = [need.peak for need in needs if need is not None]
    return max(peaks) if len(peaks) == len(needs) else None


def _unread(loaded: Loaded) -> Any:
    """A copy of the backbone whose weights nobody has written, so that they take no memory, but for its text."""
    import torch

    backbone = loaded.backbone
    memo: dict[int, Any] = {
        id(one): torch.nn.Parameter(torch.empty_like(one), one.requires_grad) for one in backbone.parameters()
    }
    if backbone.takes_text:
        memo[id(backbone.captions)] = backbone.captions
    copied = copy.deepcopy(backbone, memo)
    copied.record = None  # what is only counted describes no weights
    return copied


def told_memory_of_commands(memory: Mapping[str, int | None]) -> tuple[str, str]:
    """The line of a plan on what :meth:`InnerNeeds.memory` gave."""
    steps = {"training": "a training step", "sampling": "a denoising step of the bare network"}
    told = []
    for what, step in steps.items():
        if what in memory:
            peak = memory[what]
            told.append(f"{step} {UNCOUNTED}" if peak is None else f"{in_bytes(peak)} for {step}")
    return "memory", f"{' and '.join(told)}; without decoder and scoring" if told else "nothing more"


def told_disk_of_commands(disk: Mapping[str, int]) -> tuple[str, str]:
    """The line of a plan on what :meth:`InnerNeeds.disk` gave, with what is free."""
    said = told_disk(disk, images="images", latents="latents", checkpoints="checkpoints", learnt="what is learnt")
    return "disk", f"at most {said}; without latent stores, features while scoring, logs and pages"


def check_disk_of_commands(disk: Mapping[str, int], place: Path, printer: Printer) -> None:
    """Say where the disk is too small: images take at most what is said, so that they alone are a warning.

    Raises:
        ConfigError: it has no room for what is trained.
    """
    trained = disk["checkpoints"] + disk["learnt"]
    if trained > disk["free"]:
        raise ConfigError(
            f"the disk of {place} has {in_bytes(disk['free'])}, and the runs take {in_bytes(trained)} for checkpoints "
            "and what is learnt",
            hint="Give another -o.",
        )
    if disk["needed"] > disk["free"]:
        printer.warn("the disk may be too small: images take at most what is said")
