"""The files that say what a folder of samples is, samples.json and plan.jsonl, and their own checksums.

``SHA256SUMS.records`` keeps these, as ``sha256sum`` checks them. While a file is replaced it has two lines there, with
the old sum and the new one, so that a kill at any moment leaves files that are as recorded.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ..errors import ConfigError
from ..storage import physical_memory, read_bounded, write_bytes, write_text
from .sums import SUMS

ABOUT, PLAN, RECORD_SUMS = "samples.json", "plan.jsonl", f"{SUMS}.records"
_LINE = re.compile(r"([0-9a-f]{64})  ([\w.]+)")
Sums = dict[str, set[str]]


class FolderRecords:
    """samples.json and plan.jsonl of one folder. Whoever writes them holds the folder's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> bytes | None:
        """The bytes of one of the files; None: it is not there."""
        path = self.path / name
        return read_bounded(path, limit=physical_memory() // 8) if path.exists() else None

    def is_written(self, name: str, data: bytes) -> bool:
        """Whether the file holds ``data``, and its sum is recorded."""
        return self.read(name) == data and self._sums().get(name) == {_sum_of(data)}

    def write(self, name: str, data: bytes) -> None:
        """Replace the file by ``data``, unless it holds that already."""
        if self.is_written(name, data):
            return
        sums, before = self._sums(), self.read(name)
        old = {_sum_of(before)} & sums.get(name, set()) if before is not None else set()
        self._write_sums({**sums, name: old | {_sum_of(data)}})
        write_bytes(self.path / name, data)
        if old:
            self._write_sums({**sums, name: {_sum_of(data)}})

    def faults(self) -> list[str]:
        """A sentence for each of the files that is missing or was changed; folders of earlier versions tell none."""
        found = []
        for name, known in sorted(self._sums().items()):
            data = self.read(name)
            if data is None:
                found.append(f"{name} is missing")
            elif _sum_of(data) not in known:
                found.append(f"{name} was changed")
        return found

    def _sums(self) -> Sums:
        """What SHA256SUMS.records says. Raises ConfigError when it cannot be read."""
        path = self.path / RECORD_SUMS
        if not path.exists():
            return {}
        found: Sums = {}
        for line in read_bounded(path).decode("ascii", "replace").splitlines():
            match = _LINE.fullmatch(line)
            if match is None or match[2] not in (ABOUT, PLAN):
                raise ConfigError(f"{path} was changed: it holds the line {line[:80]!r}", hint="Remove it.")
            found.setdefault(match[2], set()).add(match[1])
        return found

    def _write_sums(self, sums: Sums) -> None:
        lines = [f"{one}  {name}\n" for name in sorted(sums) for one in sorted(sums[name])]
        write_text(self.path / RECORD_SUMS, "".join(lines))


def _sum_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
