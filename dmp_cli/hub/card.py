"""The card of a patch: the README.md that the hub shows, made from what its file and its run say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..config import PatchConfig, PatchRecord, TrainConfig, default_of, in_words
from ..errors import ConfigError, one_line
from ..report import markdown_table
from ..version import __version__
from .score_table import score_lines

PAPER = "https://arxiv.org/abs/2405.17825"
GRID_FILE, GATES_FILE = "samples.png", "gates.png"
_LICENCE = re.compile("[a-z0-9][a-z0-9.+-]*")
# Of a training's record: what the first table says already, or what no option sets.
_NO_OPTION = {"data", "steps", "val_part", "val_seed"}


@dataclass(frozen=True)
class Known:
    """What a card says of a patch beside what its file says. None: it is not known, and the card leaves it out."""

    license: str  # as the hub writes it, such as apache-2.0
    base_model: str | None = None  # the backbone's repository on the hub
    grid: bytes | None = None  # a PNG of samples
    grid_about: str = "Samples."  # what this picture shows, in a sentence
    gates: bytes | None = None  # a PNG of the gate's weights
    report: Mapping[str, Any] | None = None  # the report.json of dmp eval

    def __post_init__(self) -> None:
        if not _LICENCE.fullmatch(self.license):
            raise ConfigError(
                f"--license {self.license!r} is no licence as the hub writes it",
                hint="Write it in lower case, such as apache-2.0, cc-by-4.0, openrail or other.",
            )


def build_card(record: PatchRecord, known: Known, *, repo: str, learnt: int) -> str:
    """The card as Markdown with its metadata in front. ``learnt``: the numbers in the patch file."""
    lines = ["---", *_metadata(record, known), "---", "", f"# {repo.partition('/')[2]}", ""]
    lines += [_in_a_sentence(record), "", "```bash", f"dmp sample --patch {repo} --download -n 16", "```", ""]
    lines += markdown_table(["", ""], [list(row) for row in _facts(record, learnt)])
    if changed := list(_recipe(record)):
        lines += ["", "## Recipe", "", "Options that differ from the defaults of `dmp train`:", ""]
        lines += markdown_table(["option", "value", "default"], changed)
    if known.grid is not None:
        lines += ["", "## Samples", "", known.grid_about, "", f"![Samples]({GRID_FILE})"]
    if known.report is not None:
        lines += ["", "## Scores", "", *score_lines(known.report)]
    if known.gates is not None:
        about = "Which prompts the gate uses at which timestep, block by block."
        lines += ["", "## Gates", "", about, "", f"![Gate weights]({GATES_FILE})"]
    return "\n".join(lines) + "\n"


def _metadata(record: PatchRecord, known: Known) -> Iterator[str]:
    """Lines of YAML; a string of JSON is one of YAML too."""
    yield f"license: {json.dumps(known.license)}"
    yield "library_name: dmp"
    if known.base_model is not None:
        yield f"base_model: {json.dumps(known.base_model)}"
        yield "base_model_relation: adapter"
    data = str((record.training or {}).get("data"))
    if re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", data, re.ASCII):  # of the hub: a folder's name has no slash
        yield from ("datasets:", f"- {json.dumps(data.partition(':')[0])}")
    yield f"pipeline_tag: {'unconditional-image-generation' if record.text is None else 'text-to-image'}"
    yield from ("tags:", "- dmp", "- diffusion-model-patching", f"- {json.dumps(record.backbone.family)}")


def _in_a_sentence(record: PatchRecord) -> str:
    training = record.training or {}
    where = f"for {_code(record.backbone.name or record.backbone.family)}"
    if not training.get("steps_done"):
        return f"A patch ([Diffusion Model Patching]({PAPER})) {where} that was never trained: it changes nothing."
    count = training.get("num_images")
    images = f"{count:,} images of " if isinstance(count, int) else ""
    return (
        f"A patch ([Diffusion Model Patching]({PAPER})) {where}, trained for {training['steps_done']:,} steps on "
        f"{images}{_code(training.get('data') or 'unnamed data')}."
    )


def _facts(record: PatchRecord, learnt: int) -> Iterator[tuple[str, str]]:
    backbone, training = record.backbone, record.training or {}
    yield "backbone", _code(backbone.name or backbone.family)
    yield "its digest", _code(backbone.digest)
    yield "codec", _code(record.codec.kind) + (f", digest {_code(record.codec.digest)}" if record.codec.digest else "")
    if record.text is not None:
        yield "text encoder", f"{_code(record.text.kind)}, digest {_code(record.text.digest)}"
    sides = record.image_size
    yield "image size", f"{sides} pixels" if isinstance(sides, int) else " x ".join(map(str, sides)) + " pixels"
    yield "prompts", f"{record.hidden_shapes[0][0]:,} in each of {len(record.hidden_shapes)} blocks"
    yield "numbers learnt", f"{learnt:,}"
    if training:
        yield "trained by", f"{_code(training.get('method'))}, seed {training.get('seed')}"
        yield "steps", f"{training.get('steps_done', 0):,}"
        yield "data", _code(training.get("data"))
        if training.get("data_fingerprint"):
            yield "fingerprint of the data", _code(training["data_fingerprint"])
    yield "dmp", _code(training.get("dmp", __version__))


def _recipe(record: PatchRecord) -> Iterator[list[str]]:
    """Option, value and default of each option that was set otherwise."""
    told = {**(record.training or {})}
    for name in TrainConfig.model_fields:
        if name in told and name not in _NO_OPTION:
            yield from _compared(TrainConfig, name, told[name])
    for name, value in record.config.model_dump(mode="json").items():
        if name in PatchConfig.model_fields:
            yield from _compared(PatchConfig, name, value)


def _compared(kind: Any, name: str, value: Any) -> Iterator[list[str]]:
    field = kind.model_fields[name]
    usual = None if field.is_required() else default_of(kind, name)
    plain = list(usual) if isinstance(usual, tuple) else usual
    if value is None or value == plain:
        return
    shown = in_words(tuple(value) if isinstance(value, list) else value)
    yield [f"`--{name.rstrip('_').replace('_', '-')}`", _code(shown), _code(in_words(usual) or "–")]


def _code(text: object) -> str:
    """A word as it is: nothing in it is markup."""
    return "`" + one_line(str(text)).replace("`", "'") + "`"
