"""Rebuilds the commands that made the samples and the scores of an evaluation, from the records beside them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from ..config import EvalConfig, SampleConfig
from ..sampling import SampleRecord, read_record
from .results import Evaluation, Row

_SETTINGS = ("seed", "sampler", "steps", "guidance", "guidance_channels", "strength", "batch_size", "dtype", "quantize")


def commands_of(evaluation: Evaluation, config: EvalConfig) -> str:
    """One command per line: one for each folder that says how it was made, then the evaluation itself."""
    sampled = [line for row in evaluation.rows if (line := sample_command(row)) is not None]
    return "\n".join([*sampled, shlex.join(_eval_words(config))])


def sample_command(row: Row) -> str | None:
    """The ``dmp sample`` command that draws the images of a folder again. None: its samples.json does not say how.

    A command for prompts or a plan reads the ``plan.jsonl`` beside the images, which records everything about them.
    """
    record = read_record(row.made)
    if not record.sample or not record.origin:
        return None
    return shlex.join(_sample_words(record, count=record.num_images or row.count, folder=Path(row.samples)))


def _sample_words(record: SampleRecord, *, count: int, folder: Path) -> Iterator[str]:
    sample, given = record.sample, dict(record.origin.get("given") or {})
    yield from ("dmp", "sample")
    if not given:  # earlier versions recorded only the backbone
        given = {"backbone": record.origin.get("backbone")}
    for name, values in given.items():
        for value in values if isinstance(values, list) else [values]:
            yield from (f"--{name.replace('_', '-')}", *(() if value is True else (str(value),)))
    if record.is_bare and "patch" in given:
        yield "--no-patch"
    yield from ("-n", str(count))
    for name in _SETTINGS:
        # the defaults of these depend on the backbone and on -n, so they are always written out
        always = name in ("sampler", "guidance", "guidance_channels", "batch_size")
        if name in sample and (always or sample[name] != SampleConfig.model_fields[name].default):
            yield from (f"--{name.replace('_', '-')}", f"{sample[name]:g}" if name == "guidance" else str(sample[name]))
    if any(sample.get(name) for name in ("prompts", "prompt_file", "plan")):
        yield from ("--plan", str(folder / "plan.jsonl"))
    elif sample.get("classes"):
        yield from ("--classes", ",".join(map(str, sample["classes"])))
    if sample.get("against_scale") is not None:
        yield from ("--against-scale", f"{sample['against_scale']:g}")
    for name in ("guidance_interval", "against_interval"):
        if list(sample.get(name) or (0, 1)) != [0, 1]:
            yield from (f"--{name.replace('_', '-')}", ",".join(f"{end:g}" for end in sample[name]))
    for name, settings in (("balanced", sample), ("compile", sample), ("vae_tiling", record.made)):
        if settings.get(name):
            yield f"--{name.replace('_', '-')}"
    yield from ("-o", str(folder))


def _eval_words(config: EvalConfig) -> Iterator[str]:
    yield from ("dmp", "eval")
    for folder in config.samples:
        yield from ("--samples", str(folder))
    yield from ("--reference", str(config.reference))
    for name, field in EvalConfig.model_fields.items():
        value = getattr(config, name)
        if name in ("samples", "reference") or value == field.default:
            continue
        if name == "reference_part":
            text = f"{value[0] + 1}/{value[1]}"
        else:
            text = ",".join(value) if isinstance(value, tuple) else str(value)
        yield from (f"--{name.replace('_', '-')}", text)
