"""The file of a journal: JSON objects, one a line, read and appended for Optuna. Whoever appends holds the lock."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..storage import SMALL, cannot_write, check_file, in_bytes, parse_json


class JournalFile:
    """A file as Optuna's storage of a journal takes it, with ``read_logs`` and ``append_logs``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = (0, 0)  # lines and bytes up to which it was read

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """The records from that number on, of whole lines. Raises ConfigError for a line that is no record."""
        if not self.path.exists():
            return []
        if (size := check_file(self.path).st_size) > SMALL:
            raise ConfigError(f"{self.path} is no journal: it has {in_bytes(size)}")
        known, start = self._read if self._read[0] == log_number_from else (0, 0)
        try:
            with open(self.path, "rb") as file:
                file.seek(start)
                content = file.read()
        except OSError as error:
            raise ConfigError(f"cannot read {self.path}: {error.strerror or error}") from error
        whole = content[: content.rfind(b"\n") + 1]
        rows = whole.split(b"\n")[:-1]
        found = [self._parse(row, number) for number, row in enumerate(rows, start=known + 1)]
        self._read = (known + len(rows), start + len(whole))
        return found[log_number_from - known :]

    def append_logs(self, logs: Iterable[dict[str, Any]]) -> None:
        """Append records, after what a killed process left of a line is removed."""
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        try:
            with open(self.path, "ab+") as file:
                self._cut(file)
                file.write(text.encode())
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _cut(self, file: Any) -> None:
        """Remove what stands after the last line end."""
        end = file.seek(0, os.SEEK_END)
        start = end
        while start > self._read[1]:
            step = min(4096, start - self._read[1])
            file.seek(start - step)
            place = file.read(step).rfind(b"\n")
            if place >= 0:
                start += place + 1 - step
                break
            start -= step
        if start < end:
            file.truncate(start)

    def _parse(self, row: bytes, number: int) -> dict[str, Any]:
        place = f"{self.path}, line {number}"
        try:
            record = parse_json(row.decode("utf-8"), name=place, first_line=number)
        except UnicodeDecodeError:
            raise ConfigError(f"{place} is not UTF-8 text") from None
        if not isinstance(record, dict) or type(record.get("op_code")) is not int or "worker_id" not in record:
            raise ConfigError(f"{place} is no record of a journal", hint="Bring a sound copy back, or use --force.")
        return record
