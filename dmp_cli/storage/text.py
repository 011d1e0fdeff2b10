"""Text that a person wrote: UTF-8, with or without a byte order mark, with the line ends of any system.

Editors of Windows put the mark U+FEFF first and end lines with CRLF. All text comes in by here, so that no reader has
to know: options, plans, prompts, arms, sizes, configs and captions.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigError, DMPError
from .limits import SMALL, check_file, check_pipe, in_bytes, read_bounded

_LONGEST = 16 << 20  # bytes of a line of a file that is read line by line
_OTHERS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def decode_text(data: bytes, *, name: str, kind: type[DMPError] = ConfigError) -> str:
    """The text of ``data``, its lines ended by a line feed alone. Raises ``kind`` when it is not UTF-8."""
    other = next((told for mark, told in _OTHERS.items() if data.startswith(mark)), None)
    if other is not None:
        raise kind(f"{name} is {other} text, not UTF-8 text", hint="Save it as UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise kind(
            f"{name} is not UTF-8 text: line {line} holds the byte 0x{data[error.start]:02x}", hint="Save it as UTF-8."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(
    path: Path, *, name: str | None = None, kind: type[DMPError] = ConfigError, regular: bool = True
) -> Iterator[tuple[int, str]]:
    """The number, from 1, and the text of each line of a file that may be larger than memory; see :func:`read_text`."""
    told, number = name or str(path), 0
    (check_file if regular else check_pipe)(path, name=name, kind=kind)
    try:
        with open(path, "rb") as file:
            for row in iter(lambda: file.readline(_LONGEST), b""):
                if len(row) == _LONGEST:
                    raise kind(f"{told}, line {number + 1} is longer than {in_bytes(_LONGEST)}")
                for line in _decode_row(row, number, name=told, kind=kind).removesuffix("\n").split("\n"):
                    number += 1
                    yield number, line
    except OSError as error:
        raise kind(f"cannot read {told}: {error.strerror or error}") from error


def _decode_row(row: bytes, before: int, *, name: str, kind: type[DMPError]) -> str:
    """The text of a row behind ``before`` lines; a mark is looked for only in the first."""
    if before == 0:
        return decode_text(row, name=name, kind=kind)
    try:
        return row.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise kind(
            f"{name} is not UTF-8 text: line {before + 1} holds the byte 0x{row[error.start]:02x}",
            hint="Save it as UTF-8.",
        ) from error


def read_text(
    path: Path,
    *,
    name: str | None = None,
    kind: type[DMPError] = ConfigError,
    limit: int = SMALL,
    regular: bool = True,
) -> str:
    """The text of a file, as :func:`decode_text`.

    Args:
        name: what messages call it, such as ``--plan FILE``; None: its path.
        kind: the error that is raised when the file cannot be read or is no text.
        limit, regular: see :func:`read_bounded`.
    """
    data = read_bounded(Path(path), name=name, kind=kind, limit=limit, regular=regular)
    return decode_text(data, name=name or str(path), kind=kind)
