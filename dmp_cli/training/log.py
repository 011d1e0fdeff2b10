"""``log.jsonl``: what happened in a run, one JSON object a line. A damaged line is dropped and said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..storage import append_text, staged_file, whole_json_lines


class RunLog:
    """The log of one run. Only one process writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, line: dict[str, Any]) -> None:
        """Append one line. Raises DMPError when it cannot be written."""
        append_text(self.path, json.dumps(line) + "\n", sync=False)

    def warn_of_damage(self, *, warn: Callable[[str], None]) -> None:
        """Say which lines are none of a log; :meth:`cut` drops them."""
        damaged: list[int] = []
        for _ in self._lines(damaged):
            pass
        if damaged:
            first = min(damaged)
            what = f"line {first}" if len(damaged) == 1 else f"{len(damaged)} lines, from line {first} on,"
            warn(f"{self.path}: {what} cannot be read and {'is' if len(damaged) == 1 else 'are'} dropped")

    def cut(self, *, after: int) -> None:
        """Remove the lines of steps after ``after``, which a continued run does again, and damaged ones."""
        if self.path.exists():
            with staged_file(self.path) as partial, open(partial, "wb") as kept:
                kept.writelines(row for row, step in self._lines([]) if step <= after)

    def held_out(self) -> list[tuple[int, dict[str, Any]]]:
        """The measurements of the held-out loss: step and entry of each, in the order of the file."""
        if not self.path.exists():
            return []
        lines = [line for _, _, line in whole_json_lines(self.path, drop=lambda number: None)]
        return [
            (line["step"], line["held_out"])
            for line in lines
            if type(line.get("step")) is int and _is_loss(line.get("held_out"))
        ]

    def _lines(self, damaged: list[int]) -> Iterator[tuple[bytes, int]]:
        """The bytes and the step of each line; the numbers of damaged lines are put into ``damaged``."""
        if not self.path.exists():
            return
        for number, row, line in whole_json_lines(self.path, drop=damaged.append):
            step = line.get("step")
            if type(step) is int:
                yield row, step
            else:
                damaged.append(number)


def _is_loss(entry: Any) -> bool:
    return isinstance(entry, dict) and type(entry.get("loss")) in (int, float)
