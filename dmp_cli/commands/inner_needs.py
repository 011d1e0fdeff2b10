"""What the commands that a command runs will write, from their words: read as ``dmp`` itself would read them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import JobOptions, NetworkOptions, PatchConfig, SampleConfig, SampleOptions, TrainConfig, TrainOptions
from ..errors import ConfigError
from ..storage import in_bytes
from .console import Printer
from .options import Given
from .plans import told_disk
from .written import WrittenByRun, pixels_of, written_by_images, written_by_run

if TYPE_CHECKING:
    from ..pipeline import Loaded

_OF_NUMBERS = ("method", "lora_rank", "lora_targets", "gate_noise", "balance_load", "balance_losses")


def read_words(command: Sequence[str], dmp: Any) -> Given:
    """What was given to an inner command, such as ``["train", "--steps", "3"]``; ``dmp`` is the root command.

    A scale that is yet to be chosen, W, counts as 1.
    """
    words = ["1" if word == "W" and command[at - 1] == "--against-scale" else word for at, word in enumerate(command)]
    inner = dmp.get_command(None, words[0])
    context = inner.make_context(words[0], words[1:])
    named = {key for key in context.params if context.get_parameter_source(key).name == "COMMANDLINE"}
    return Given({key: context.params[key] for key in named})


def disk_of_commands(
    commands: Sequence[Sequence[str]], network: NetworkOptions, *, dmp: Any, jobs: JobOptions, digits: bool
) -> dict[str, int]:
    """Bytes that these commands write for each purpose; logs, pages and pictures of them are not counted.

    Those that run at the same time, as ``jobs`` says, have a checkpoint to spare each. ``digits``: whether the
    embedded images are written first.
    """
    from ..pipeline import load_bare

    loaded = load_bare(network, "cpu")
    at_once = jobs.jobs or (1 if jobs.cluster is None else len(commands))
    runs: dict[Path, WrittenByRun] = {}
    images, latents = 0, 0
    if digits:
        from ..demo import load_digits

        images = written_by_images(len(load_digits()[0]), pixels=8 * 8, tar=False)
    counts: dict[Any, int] = {}
    for command in (one for one in commands if one[0] != "eval"):
        given = read_words(command, dmp)
        if command[0] == "train":
            place, written = given.make(TrainOptions).output or Path(), _written(given, loaded, counts)
            runs[place] = max(runs.get(place, written), written)  # one run goes on from point to point
        elif command[0] == "sample":
            # The options that name files of prompts and plans are other fields of the record.
            count = given.make(SampleConfig, prompts=None, plan=None).num_images
            options = given.make(SampleOptions)
            images += written_by_images(count, pixels=pixels_of(loaded.backbone, loaded.codec), tar=options.tar)
            latents += 4 * count * math.prod(loaded.backbone.sample_shape) if options.keep_latents else 0
    spare = sorted((run.spare for run in runs.values()), reverse=True)[:at_once]
    return {
        "images": images,
        "latents": latents,
        "checkpoints": sum(run.checkpoints for run in runs.values()) + sum(spare),
        "learnt": sum(run.learnt for run in runs.values()),
    }


def _written(given: Given, loaded: Loaded, counts: dict[Any, int]) -> WrittenByRun:
    """What one training writes; ``counts`` remembers how much is learnt with which options."""
    from ..training import prepare

    config = given.make(TrainConfig)
    is_patch = config.method in ("dmp", "prompt-tuning")
    patch = given.make(PatchConfig) if is_patch else None
    key = (tuple(str(getattr(config, name)) for name in _OF_NUMBERS), patch and patch.model_dump_json())
    if key not in counts:
        trainee = prepare(config, backbone=_unread(loaded), codec=loaded.codec, patch_config=patch)
        counts[key] = trainee.num_learnt
    return written_by_run(config, learnt=counts[key])


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


def told_disk_of_commands(disk: Mapping[str, int]) -> tuple[str, str]:
    """The line of a plan on what :func:`disk_of_commands` gave, with what is free."""
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
