"""The ranges that a search looks through: which options of a training may take which values, from a TOML file."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import nearest
from ..errors import ConfigError
from ..storage import read_toml

_MOST_TRIED = 4096  # combinations of choices and ends of ranges that are tried out before the first trial
_ENTRIES = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Range:
    """The values that one option may take: choices, or numbers from ``low`` to ``high``."""

    name: str
    choices: tuple[Any, ...] | None = None
    low: float = 0
    high: float = 0
    log: bool = False  # whether values are spread evenly over the logarithm
    step: float | None = None
    line: int | None = field(default=None, compare=False)  # of its file; None: it is one of the defaults

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are whole ones."""
        return isinstance(self.low, int)

    def ends(self) -> Sequence[Any]:
        """The values at which an option's own bounds show: all choices, or both ends."""
        return self.choices if self.choices is not None else (self.low, self.high)

    def holds(self, value: Any) -> bool:
        """Whether the option may take ``value``."""
        if self.choices is not None:
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        if self.step is None:
            return not self.is_whole or isinstance(value, int)
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-6)

    def in_toml(self) -> str:
        """The line of a TOML file that :func:`read_ranges` reads as this."""
        if self.choices is not None:
            return f"{self.name} = {json.dumps(list(self.choices))}"
        step = "" if self.step is None else f", step = {self.step}"
        return f"{self.name} = {{low = {self.low}, high = {self.high}{', log = true' if self.log else ''}{step}}}"


@dataclass(frozen=True)
class Ranges:
    """The options that a search varies, and those that have one value in all trials."""

    free: tuple[Range, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def corners(self) -> Iterator[dict[str, Any]]:
        """Options at the ends of all ranges, in every combination, up to some thousands of them."""
        names = [one.name for one in self.free]
        for values in itertools.islice(itertools.product(*(one.ends() for one in self.free)), _MOST_TRIED):
            yield {**self.fixed, **dict(zip(names, values, strict=True))}

    def in_toml(self) -> str:
        """A TOML file that :func:`read_ranges` reads as this."""
        fixed = [f"{name} = {json.dumps(value)}" for name, value in self.fixed.items()]
        return "\n".join([*fixed, *(one.in_toml() for one in self.free)]) + "\n"


def default_ranges() -> Ranges:
    """What is searched where nothing else is said: both learning rates and both balance losses of a patch."""
    weights = (0.0, 0.1, 1.0)
    return Ranges(
        (
            Range("lr", low=1e-5, high=1e-2, log=True),
            Range("gate_lr", low=1e-4, high=1e-1, log=True),
            Range("balance_importance", choices=weights),
            Range("balance_load", choices=weights),
        )
    )


def read_ranges(path: Path, *, known: Mapping[str, type | None], reserved: Collection[str]) -> Ranges:
    """Read a TOML file: ``lr = {low = 1e-5, high = 1e-2, log = true}``, ``gate = ["linear", "attention"]``.

    An option with one plain value has it in all trials. ``known`` are all options, with int or float for those that
    are numbers; ``reserved`` are the names of those that the search sets itself.

    Raises:
        ConfigError: the file cannot be read or is not TOML, an option is unknown or reserved, or a range is none. The
            message names the line, and the known option with the nearest name.
    """
    text, content = read_toml(Path(path))
    free: list[Range] = []
    fixed: dict[str, Any] = {}
    for key, value in content.items():
        name, line = key.replace("-", "_"), _find(text, key)
        place = f"{path}, line {line}"
        if name in reserved:
            raise ConfigError(f"{place}: {key} is the same for all trials", hint="dmp tune sets it, or has an option.")
        if name not in known:
            raise ConfigError(f"{place}: dmp train has no option {key}", hint=nearest(name, known))
        if name in fixed or any(one.name == name for one in free):
            raise ConfigError(f"{place}: {key} stands twice")
        if isinstance(value, dict):
            free.append(_numbers(name, value, kind=known[name], place=place, line=line))
        elif isinstance(value, list):
            free.append(_choices(name, value, kind=known[name], place=place, line=line))
        else:
            fixed[name] = value
    if not free:
        raise ConfigError(f"{path} holds no ranges", hint="Write one as lr = {low = 1e-5, high = 1e-2, log = true}.")
    return Ranges(tuple(free), fixed)


def _find(text: str, key: str) -> int:
    """The line of a key at the top level of a TOML file, or of the table that it names; 1 where it is not found."""
    pattern = re.compile(rf"""\s*(\[\s*)?["']?{re.escape(key)}["']?\s*[=\].]""")
    return next((number for number, row in enumerate(text.splitlines(), start=1) if pattern.match(row)), 1)


def _choices(name: str, values: list[Any], *, kind: type | None, place: str, line: int) -> Range:
    if not all(isinstance(value, (str, int, float)) for value in values):
        raise ConfigError(f"{place}: the choices of {name} are words, numbers, true or false")
    if kind is float:
        values = [float(value) if type(value) is int else value for value in values]
    if len(values) < 2 or any(value in values[:place_] for place_, value in enumerate(values)):
        raise ConfigError(f"{place}: {name} needs two choices or more, each once")
    return Range(name, choices=tuple(values), line=line)


def _numbers(name: str, given: Mapping[str, Any], *, kind: type | None, place: str, line: int) -> Range:
    if kind is None:
        raise ConfigError(f"{place}: {name} takes no numbers", hint=f'Give choices, such as {name} = ["a", "b"].')
    for entry in given:
        if entry not in _ENTRIES:
            raise ConfigError(f"{place}: a range has no {entry}", hint=nearest(entry, _ENTRIES))
    low, high, step, log = (given.get(entry) for entry in ("low", "high", "step", "log"))
    numbers = [value for value in (low, high, step) if value is not None]
    if low is None or high is None or not all(_is_number(value, kind) for value in numbers):
        what = "whole numbers" if kind is int else "numbers"
        raise ConfigError(f"{place}: {name} needs low and high, which are {what}")
    if not isinstance(log, bool | None):
        raise ConfigError(f"{place}: log of {name} is true or false")
    low, high, *rest = (kind(value) for value in numbers)
    found = Range(name, low=low, high=high, log=bool(log), step=rest[0] if rest else None, line=line)
    if not low < high:
        raise ConfigError(f"{place}: low of {name} is not below high")
    if log and (low <= 0 or rest):
        raise ConfigError(f"{place}: a range of {name} with log = true begins above 0 and has no step")
    if rest and (rest[0] <= 0 or not found.holds(high)):
        raise ConfigError(f"{place}: steps of {rest[0]} do not lead from {low} to {high}")
    return found


def _is_number(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return False
    return kind is float or isinstance(value, int)
