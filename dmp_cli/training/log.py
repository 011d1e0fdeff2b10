"""``log.jsonl``: what happened in a run, one JSON object a line. A damaged line is dropped and said."""

from __future__ import annotations

import json
from collections.abc import Callable
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

    def mend(self, *, warn: Callable[[str], None]) -> None:
        """Remove what is no line of a log, and say so."""
        damaged = self._keep(lambda step: True)
        if damaged:
            what = f"line {damaged[0]}" if len(damaged) == 1 else f"{len(damaged)} lines, from line {damaged[0]} on,"
            warn(f"{self.path}: {what} cannot be read and {'is' if len(damaged) == 1 else 'are'} dropped")

    def cut(self, *, after: int) -> None:
        """Remove the lines of steps after ``after``, which a continued run does again, and damaged ones."""
        self._keep(lambda step: step <= after)

    def _keep(self, wanted: Callable[[int], bool]) -> list[int]:
        """Keep the lines of the ``wanted`` steps; returns the numbers of the damaged lines, which are not kept."""
        damaged: list[int] = []
        if self.path.exists():
            with staged_file(self.path) as partial, open(partial, "wb") as kept:
                for number, row, line in whole_json_lines(self.path, drop=damaged.append):
                    step = line.get("step")
                    if type(step) is not int:
                        damaged.append(number)
                    elif wanted(step):
                        kept.write(row)
        return sorted(damaged)
