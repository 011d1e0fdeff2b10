"""The commands that made an evaluation's samples and its scores, from the records they left."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .config import EvalConfig, SampleConfig
from .scores import Evaluation, Row

_PLAIN = ("seed", "sampler", "steps", "guidance", "guidance_channels", "strength", "batch_size", "dtype")


def commands_of(evaluation: Evaluation, config: EvalConfig) -> str:
    """One command a line: each folder of samples that says how it was made, then the evaluation."""
    sampled = [line for row in evaluation.rows if (line := sample_command(row)) is not None]
    return "\n".join([*sampled, _join(_evaluation(config))])


def sample_command(row: Row) -> str | None:
    """The ``dmp sample`` that draws the images of a folder again, by its samples.json; None: it does not say.

    Prompts and plans are taken from the ``plan.jsonl`` beside the images, which says all that they did.
    """
    record = row.made or {}
    made, origin = record.get("made"), record.get("origin")
    if not isinstance(made, dict) or not isinstance(origin, dict) or not isinstance(made.get("sample"), dict):
        return None
    return _join(_sampling(made, origin, count=record.get("num_images", row.count), folder=Path(row.samples)))


def _sampling(made: dict[str, Any], origin: dict[str, Any], *, count: int, folder: Path) -> Iterator[str]:
    sample, patch = made["sample"], origin.get("patch_file")
    yield from ("dmp", "sample")
    if patch is not None:
        yield from ("--patch", patch)
        if made.get("patch") is None:
            yield "--no-patch"
    else:
        yield from ("--backbone", str(origin.get("backbone")))
    if made.get("adapter") is not None:
        yield from ("--adapter", "ADAPTER")
    yield from ("-n", str(count))
    for name in _PLAIN:
        always = name in ("guidance", "guidance_channels", "batch_size")  # their defaults are the backbone's, and -n's
        if name in sample and (always or sample[name] != SampleConfig.model_fields[name].default):
            yield from (f"--{name.replace('_', '-')}", f"{sample[name]:g}" if name == "guidance" else str(sample[name]))
    if sample.get("prompts") or sample.get("plan"):
        yield from ("--plan", str(folder / "plan.jsonl"))
    elif sample.get("classes"):
        yield from ("--classes", ",".join(map(str, sample["classes"])))
    if list(sample.get("guidance_interval") or (0, 1)) != [0, 1]:
        yield from ("--guidance-interval", ",".join(f"{end:g}" for end in sample["guidance_interval"]))
    for name in ("balanced", "compile"):
        if sample.get(name):
            yield f"--{name}"
    yield from ("-o", str(folder))


def _evaluation(config: EvalConfig) -> Iterator[str]:
    yield from ("dmp", "eval")
    for folder in config.samples:
        yield from ("--samples", str(folder))
    yield from ("--reference", str(config.reference))
    for name, field in EvalConfig.model_fields.items():
        value = getattr(config, name)
        if name in ("samples", "reference") or value == field.default:
            continue
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        yield from (f"--{name.replace('_', '-')}", text)


def _join(words: Iterator[str]) -> str:
    return shlex.join(words)
