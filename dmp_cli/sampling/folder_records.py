"""The files that say what a folder of samples is, samples.json and plan.jsonl, and their own checksums.

``SHA256SUMS.records`` keeps these, as ``sha256sum`` checks them. While a file is replaced it has two lines there, with
the old sum and the new one, so that a kill at any moment leaves files that are as recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from ..data import RECORD_SUMS, parse_record_sums
from ..errors import ConfigError
from ..storage import check_file, open_regular, read_bounded, sha256_of, staged_file, write_text

Sums = dict[str, set[str]]
Content = Callable[[], Iterable[bytes]]  # of a file, piece by piece, as often as it is asked for


class FolderRecords:
    """samples.json and plan.jsonl of one folder. Whoever writes them holds the folder's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begins_with(self, name: str, data: Content) -> bool:
        """Whether the file is there and its first bytes are those of ``data``; the rest of it is not read."""
        path = self.path / name
        if not path.exists():
            return False
        check_file(path)
        with open_regular(path) as file:
            return all(file.read(len(part)) == part for part in data())

    def write(self, name: str, data: Content) -> None:
        """Replace the file by ``data``, unless it holds that already and its sum is recorded."""
        sums, before, after = self._sums(), self._sum_of_file(name), _sum_of(data)
        if sums.get(name) == {after} == {before}:
            return
        old = {before} & sums.get(name, set()) if before is not None else set()
        self._write_sums({**sums, name: old | {after}})
        with staged_file(self.path / name) as partial, open(partial, "wb") as file:
            file.writelines(data())
        if old:
            self._write_sums({**sums, name: {after}})

    def faults(self) -> list[str]:
        """A sentence for each of the files that is missing or was changed; folders of earlier versions tell none."""
        found = []
        for name, known in sorted(self._sums().items()):
            there = self._sum_of_file(name)
            if there is None:
                found.append(f"{name} is missing")
            elif there not in known:
                found.append(f"{name} was changed")
        return found

    def _sum_of_file(self, name: str) -> str | None:
        path = self.path / name
        if not path.exists():
            return None
        check_file(path)
        return sha256_of(path)

    def _sums(self) -> Sums:
        """What SHA256SUMS.records says. Raises ConfigError when it cannot be read."""
        path = self.path / RECORD_SUMS
        if not path.exists():
            return {}
        return parse_record_sums(read_bounded(path), path=path, kind=ConfigError)

    def _write_sums(self, sums: Sums) -> None:
        lines = [f"{one}  {name}\n" for name in sorted(sums) for one in sorted(sums[name])]
        write_text(self.path / RECORD_SUMS, "".join(lines))


def _sum_of(data: Content) -> str:
    digest = hashlib.sha256()
    for part in data():
        digest.update(part)
    return digest.hexdigest()
