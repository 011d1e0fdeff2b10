"""Which command waits for which, read from the commands themselves.

A command writes what stands behind ``-o`` and ``--save-stats``, and reads every other path that it names. In the order
in which the commands work one after the other, a command waits for an earlier one that

- writes what it reads, such as the training of a patch that it samples with;
- reads what it writes, such as the samples of a patch that it trains further;
- writes what it writes too, such as the first half of the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePath

_WRITES = ("-o", "--output", "--save-stats")


@dataclass(frozen=True, eq=False)
class Job:
    """One command of several, and which of them it waits for."""

    number: int  # its place in the order that works one after the other
    name: str  # as people are told of it: the command, and where it writes
    key: str  # what its folder's records know it by
    output: Path | None  # the folder that it writes into
    waits: frozenset[int]  # numbers of the jobs that have to end before
    typed: Callable[[], list[str]]  # the command, asked for when it begins: what went before may have filled it in
    done: bool  # whether it was done before
    begin: Callable[[], None] = lambda: None  # to be called before it runs
    finish: Callable[[], None] = lambda: None  # to be called when it is done


def jobs_of(
    commands: Sequence[Sequence[str]],
    *,
    folder: Path,
    typed: Callable[[int], list[str]],
    keys: Sequence[str] | None = None,
    is_done: Callable[[int], bool] = lambda number: False,
    begin: Callable[[int], None] = lambda number: None,
    finish: Callable[[int], None] = lambda number: None,
    also_reads: Mapping[Path, Path] | None = None,
) -> list[Job]:
    """The jobs of commands that work in this order.

    Args:
        commands: as they are known now; what is not known yet may hold a placeholder.
        folder: the folder that all of them write into.
        typed: the command of a number, filled in.
        keys: what the folder's records know them by.
        is_done: whether the command of a number is done already.
        begin: called before the command of a number runs.
        finish: called when it is done.
        also_reads: a folder that a command writes -> what it needs beside the paths that it names.
    """
    waits, found = _waits_of(commands, also_reads or {}), []
    for number, command in enumerate(commands):
        output = _output_of(command)
        place = "" if output is None else str(_below(output, folder))
        found.append(
            Job(
                number=number,
                name=f"{command[0]} {place}".rstrip(),
                key=str(number) if keys is None else keys[number],
                output=output,
                waits=frozenset(waits[number]),
                typed=lambda number=number: typed(number),  # type: ignore[misc]
                done=is_done(number),
                begin=lambda number=number: begin(number),  # type: ignore[misc]
                finish=lambda number=number: finish(number),  # type: ignore[misc]
            )
        )
    return found


def _waits_of(commands: Sequence[Sequence[str]], also_reads: Mapping[Path, Path]) -> list[set[int]]:
    writers: dict[PurePath, list[int]] = {}  # what is written -> by whom
    inside: dict[PurePath, list[int]] = {}  # a folder -> who reads or writes in it
    found: list[set[int]] = []
    for number, command in enumerate(commands):
        writes, reads = _paths_of(command)
        reads += [also_reads[path] for path in map(Path, writes) if path in also_reads]
        waits: set[int] = set()
        for path in [*reads, *writes]:
            for around in _with_parents(path):
                waits.update(writers.get(around, ()))
        for path in writes:
            waits.update(inside.get(path, ()))
        found.append(waits)
        for path in writes:
            writers.setdefault(path, []).append(number)
        for path in [*reads, *writes]:
            for around in _with_parents(path):
                inside.setdefault(around, []).append(number)
    return found


def _paths_of(command: Sequence[str]) -> tuple[list[PurePath], list[PurePath]]:
    """What a command writes, and all of its other words, as paths."""
    writes: list[PurePath] = []
    reads: list[PurePath] = []
    for before, word in pairwise(command):
        if not word.startswith("-"):
            (writes if before in _WRITES else reads).append(PurePath(word))
    return writes, reads


def _with_parents(path: PurePath) -> Iterable[PurePath]:
    """A path and all folders around it that have a name."""
    return [one for one in (path, *path.parents) if one.name]


def _output_of(command: Sequence[str]) -> Path | None:
    for before, word in pairwise(command):
        if before in _WRITES[:2]:
            return Path(word)
    return None


def _below(path: Path, folder: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else path
