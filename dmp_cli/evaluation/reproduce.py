"""The commands that made an evaluation's samples and its scores, from the records they left."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from ..config import EvalConfig, SampleConfig
from ..sampling import SampleRecord, read_record
from .results import Evaluation, Row

_PLAIN = ("seed", "sampler", "steps", "guidance", "guidance_channels", "strength", "batch_size", "dtype")


def commands_of(evaluation: Evaluation, config: EvalConfig) -> str:
    """One command a line: each folder of samples that says how it was made, then the evaluation."""
    sampled = [line for row in evaluation.rows if (line := sample_command(row)) is not None]
    return "\n".join([*sampled, shlex.join(_evaluation(config))])


def sample_command(row: Row) -> str | None:
    """The ``dmp sample`` that draws the images of a folder again, by its samples.json; None: it does not say.

    Prompts and plans are taken from the ``plan.jsonl`` beside the images, which says all that they did.
    """
    record = read_record(row.made)
    if not record.sample or not record.origin:
        return None
    return shlex.join(_sampling(record, count=record.num_images or row.count, folder=Path(row.samples)))


def _sampling(record: SampleRecord, *, count: int, folder: Path) -> Iterator[str]:
    sample, given = record.sample, dict(record.origin.get("given") or {})
    yield from ("dmp", "sample")
    if not given:  # as folders of earlier versions are
        given = {"backbone": record.origin.get("backbone")}
    for name, value in given.items():
        yield from (f"--{name.replace('_', '-')}", *(() if value is True else (str(value),)))
    if record.is_bare and "patch" in given:
        yield "--no-patch"
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
