"""Which image is which: index -> seed, class or prompt, guidance. Written before the first image is drawn.

An image's noise at a step is a function of (seed, place, step), where the place is its index; where a seed stands
beside a prompt or in a line of a plan, that seed counts its own images, so that it gives the same ones wherever it is.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from ..backbones import Backbone
from ..config import PlanLine, Prompt, SampleConfig, build
from ..errors import ConfigError


class Item(NamedTuple):
    """One image to be."""

    seed: int
    place: int
    label: int | None  # class; None where the backbone takes none
    prompt: str | None  # None where it reads no text
    guidance: float


class Plan:
    """The items of all indices: as a config says, classes and prompts in turn, or line by line as a file does."""

    def __init__(self, config: SampleConfig, lines: tuple[PlanLine, ...] | None = None) -> None:
        self.config, self.lines = config, lines
        self._places = _places(lines or ())

    @property
    def digest(self) -> str | None:
        """SHA-256 over a file's lines; None where the config alone fixes the plan."""
        if self.lines is None:
            return None
        return hashlib.sha256("\n".join(line.model_dump_json() for line in self.lines).encode()).hexdigest()

    def item(self, index: int) -> Item:
        """The image ``index``. Beyond the end of a file its lines come again: such images fill up the last chunk."""
        return self._of_config(index) if self.lines is None else self._of_line(index % len(self.lines))

    def _of_line(self, index: int) -> Item:
        assert self.lines is not None
        line, config = self.lines[index], self.config
        seed = config.seed if line.seed is None else line.seed
        guidance = config.guidance if line.guidance is None else line.guidance
        return Item(seed, self._places[index], line.label, line.prompt, guidance)

    def _of_config(self, index: int) -> Item:
        config = self.config
        label = config.classes[index % len(config.classes)] if config.classes else None
        if not config.prompts:
            return Item(config.seed, index, label, None, config.guidance)
        prompt: Prompt = config.prompts[index % len(config.prompts)]
        guidance = config.guidance if prompt.guidance is None else prompt.guidance
        if prompt.seed is None:
            return Item(config.seed, index, label, prompt.text, guidance)
        return Item(prompt.seed, index // len(config.prompts), label, prompt.text, guidance)

    def check(self, backbone: Backbone) -> None:
        """Raise ConfigError, naming the line, where a file's plan does not suit ``backbone``, or has too few lines."""
        if self.lines is None:
            return
        if len(self.lines) < self.config.num_images:
            raise ConfigError(f"-n {self.config.num_images}: the plan has {len(self.lines)} lines")
        count, reads = backbone.num_classes, backbone.takes_text
        for number, line in enumerate(self.lines, start=1):
            place = f"line {number} of the plan"
            if (line.prompt is not None) != reads:
                raise ConfigError(f"{place}: this backbone {'reads text' if reads else 'reads no text'}")
            if (line.label is not None) != (count > 0) or (line.label is not None and line.label >= count):
                raise ConfigError(f"{place}: class {line.label}; this backbone knows {_classes(count)}")
            if not backbone.has_null and line.guidance not in (None, 1):
                raise ConfigError(f"{place}: guidance needs a null condition, which this backbone lacks")

    def text(self, count: int) -> str:
        """The first ``count`` items as JSON lines, which :func:`read_plan` reads as the same plan."""
        return "".join(json.dumps(_said(index, self.item(index)), ensure_ascii=False) + "\n" for index in range(count))


def read_plan(path: Path) -> tuple[PlanLine, ...]:
    """A plan's file: a JSON object a line, ``{"seed": 7, "class": 3, "guidance": 1.5}`` or with ``"prompt"``.

    Every field may be left out but the class, or prompt, that the backbone takes.

    Raises:
        ConfigError: it cannot be read, or a line is no such object; it is named.
    """
    try:
        rows = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read --plan {path}: {error}") from error
    lines = tuple(_parse(row, place=f"{path}, line {number}") for number, row in enumerate(rows, 1) if row.strip())
    if not lines:
        raise ConfigError(f"--plan {path} is empty")
    return lines


def _parse(row: str, *, place: str) -> PlanLine:
    try:
        fields = json.loads(row)
    except ValueError as error:
        raise ConfigError(f"{place} is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{place} is no JSON object")
    fields.pop("index", None)  # written for whoever reads it; lines count themselves
    try:
        return build(PlanLine, **{"label" if key == "class" else key: value for key, value in fields.items()})
    except ConfigError as error:
        raise ConfigError(f"{place}: {error.message.replace('--', '').replace('label', 'class')}") from error


def _places(lines: tuple[PlanLine, ...]) -> list[int]:
    """The place of each line: its own; else its index, or for a seed of its own how often that came before."""
    met: Counter[int] = Counter()
    found = []
    for index, line in enumerate(lines):
        counted = index if line.seed is None else met[line.seed]
        found.append(counted if line.place is None else line.place)
        if line.seed is not None:
            met[line.seed] += 1
    return found


def _said(index: int, item: Item) -> dict[str, Any]:
    said = {"index": index, "seed": item.seed, "place": item.place, "class": item.label, "prompt": item.prompt}
    return {**{key: value for key, value in said.items() if value is not None}, "guidance": item.guidance}


def _classes(count: int) -> str:
    return f"classes 0..{count - 1}" if count else "no classes"
