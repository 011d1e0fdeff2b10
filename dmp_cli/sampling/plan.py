"""The plan: which image is which, index -> seed, place, class or prompt, guidance.

The noise of an image at a step is a function of (seed, place, step). The place is the image's index, unless a prompt or
a line of a plan file has a seed of its own: then the images of that seed are counted from 0, so that they stay the same
wherever the prompt or line stands. ``sample`` writes the plan before it draws the first image.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backbones import Backbone
from ..config import MAX_IMAGES, PlanLine, Prompt, SampleConfig, build
from ..errors import ConfigError
from ..storage import read_json_lines
from .packed_records import digest_of, keep

_MOST_LINES = MAX_IMAGES  # as many images as one call draws


class Item(NamedTuple):
    """What fixes one image."""

    seed: int
    place: int
    label: int | None  # class; None for a backbone without classes
    prompt: str | None  # None for a backbone that reads no text
    guidance: float
    negative: str | None = None  # what guidance leads away from; None: from the null condition


class Plan:
    """The items of all indices: line by line from a plan file, else the classes or prompts of a config in turn.

    ``prompts`` are those of a file that is too long for the config; see ``SampleConfig.prompt_file``.
    """

    def __init__(
        self,
        config: SampleConfig,
        lines: Sequence[PlanLine] | None = None,
        prompts: Sequence[Prompt] | None = None,
    ) -> None:
        self.config, self.lines = config, lines
        self.prompts: Sequence[Prompt] = prompts or config.prompts or ()

    @cached_property
    def _places(self) -> Sequence[int] | np.ndarray:
        return _places(self.lines or ())

    @property
    def digest(self) -> str | None:
        """SHA-256 over the lines of a plan file; None when the config alone fixes the plan."""
        return None if self.lines is None else digest_of(self.lines)

    def item(self, index: int) -> Item:
        """What fixes image ``index``. Beyond its end a file begins again: such images only fill up the last chunk."""
        return self._of_config(index) if self.lines is None else self._of_line(index % len(self.lines))

    def _of_line(self, index: int) -> Item:
        assert self.lines is not None
        line, config = self.lines[index], self.config
        seed = config.seed if line.seed is None else line.seed
        guidance = config.guidance if line.guidance is None else line.guidance
        return Item(seed, int(self._places[index]), line.label, line.prompt, guidance, line.negative)

    def _of_config(self, index: int) -> Item:
        config = self.config
        label = config.classes[index % len(config.classes)] if config.classes else None
        if not self.prompts:
            return Item(config.seed, index, label, None, config.guidance)
        prompt = self.prompts[index % len(self.prompts)]
        guidance = config.guidance if prompt.guidance is None else prompt.guidance
        if prompt.seed is None:
            return Item(config.seed, index, label, prompt.text, guidance, prompt.negative)
        return Item(prompt.seed, index // len(self.prompts), label, prompt.text, guidance, prompt.negative)

    def check(self, backbone: Backbone) -> None:
        """Check that a plan file suits ``backbone`` and has enough lines.

        Raises:
            ConfigError: it does not; the message names the line.
        """
        if self.lines is None:
            return
        if len(self.lines) < self.config.num_images:
            raise ConfigError(f"-n {self.config.num_images}: the plan has {len(self.lines)} lines")
        num_classes, takes_text = backbone.num_classes, backbone.takes_text
        for number, line in enumerate(self.lines, start=1):
            place = f"line {number} of the plan"
            if (line.prompt is not None) != takes_text:
                raise ConfigError(f"{place}: this backbone {'reads text' if takes_text else 'reads no text'}")
            if line.negative is not None and (not takes_text or self._of_line(number - 1).guidance == 1):
                raise ConfigError(f"{place}: a negative prompt needs text and a guidance other than 1")
            if (line.label is not None) != (num_classes > 0) or (line.label is not None and line.label >= num_classes):
                raise ConfigError(f"{place}: class {line.label}; this backbone knows {_classes(num_classes)}")
            if problem := negative_problem(line.negative, backbone):
                raise ConfigError(f"{place}: {problem}")
            is_guided = backbone.has_null or backbone.embedded_guidance is not None
            if not is_guided and line.guidance not in (None, 1):
                raise ConfigError(f"{place}: guidance needs a null condition, which this backbone lacks")

    def rows(self, count: int) -> Iterator[str]:
        """The first ``count`` items as JSON lines, which :func:`read_plan` reads as the same plan."""
        rows = (_to_json(index, self.item(index)) for index in range(count))
        return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def text(self, count: int) -> str:
        """The same as one text."""
        return "".join(self.rows(count))


def negative_problem(negative: str | None, backbone: Backbone) -> str:
    """Why guidance cannot lead away from ``negative``, in words; empty: it can, or there is none."""
    if negative is None:
        return ""
    if not backbone.has_null:
        return "a negative prompt needs a null condition, which this backbone lacks"
    if negative and backbone.other_negatives:  # the empty one is encoded as there
        return "the pipeline of this backbone encodes negative prompts in another way than prompts: not supported"
    return ""


def read_plan(path: Path) -> Sequence[PlanLine]:
    """Read a plan file: one JSON object per line, such as ``{"seed": 7, "class": 3, "guidance": 1.5}``.

    Many lines are packed. A backbone that reads text needs ``"prompt"``, one with classes ``"class"``; every other
    field may be left out.

    Raises:
        ConfigError: the file cannot be read, or a line is no such object; the message names the line.
    """
    rows = read_json_lines(Path(path), name=f"--plan {path}", regular=False)
    first = islice(rows, _MOST_LINES + 1)
    lines = keep(PlanLine, (_parse(fields, place=f"{path}, line {number}") for number, fields in first))
    if len(lines) > _MOST_LINES:
        raise ConfigError(f"--plan {path} has more than {_MOST_LINES:,} lines")
    if not lines:
        raise ConfigError(f"--plan {path} is empty")
    return lines


def _parse(fields: Any, *, place: str) -> PlanLine:
    if not isinstance(fields, dict):
        raise ConfigError(f"{place} is not a JSON object")
    fields.pop("index", None)  # written for human readers; the number of the line is what counts
    try:
        return build(PlanLine, **{"label" if key == "class" else key: value for key, value in fields.items()})
    except ConfigError as error:
        raise ConfigError(f"{place}: {error.message.replace('--', '').replace('label', 'class')}") from error


def _places(lines: Sequence[PlanLine]) -> Sequence[int] | np.ndarray:
    """The place of each line: the one it gives; else how often its own seed came before, or its index without one."""
    said = ((-1 if line.seed is None else line.seed, -1 if line.place is None else line.place) for line in lines)
    try:
        seeds, places = np.fromiter(said, np.dtype((np.int64, 2)), len(lines)).T
    except OverflowError:  # seeds have any number of digits
        return _count_places(lines)
    order, indices = np.argsort(seeds, kind="stable"), np.arange(len(lines))
    is_first = np.diff(seeds[order], prepend=-2) != 0  # of its seed
    earlier = np.empty_like(indices)
    earlier[order] = indices - np.maximum.accumulate(np.where(is_first, indices, 0))
    return np.where(places >= 0, places, np.where(seeds < 0, indices, earlier))


def _count_places(lines: Sequence[PlanLine]) -> list[int]:
    """The same, one line after the other."""
    seen: Counter[int] = Counter()
    found = []
    for index, line in enumerate(lines):
        counted = index if line.seed is None else seen[line.seed]
        found.append(counted if line.place is None else line.place)
        if line.seed is not None:
            seen[line.seed] += 1
    return found


def _to_json(index: int, item: Item) -> dict[str, Any]:
    fields = {"index": index, "seed": item.seed, "place": item.place, "class": item.label, "prompt": item.prompt}
    fields["negative"] = item.negative
    return {**{key: value for key, value in fields.items() if value is not None}, "guidance": item.guidance}


def _classes(count: int) -> str:
    return f"classes 0..{count - 1}" if count else "no classes"
