"""Text that a person wrote: UTF-8, with or without a byte order mark, with the line ends of any system.

Editors of Windows put the mark U+FEFF first and end lines with CRLF. All text comes in by here, so that no reader has
to know: options, plans, prompts, arms, sizes, configs and captions.
"""

from __future__ import annotations

import codecs
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DMPError
from .regular import read_regular

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


def read_text(path: Path, *, name: str | None = None, kind: type[DMPError] = ConfigError) -> str:
    """The text of a file, as :func:`decode_text`.

    Args:
        name: what messages call it, such as ``--plan FILE``; None: its path.
        kind: the error that is raised when the file cannot be read or is no text.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise kind(f"cannot read {name or path}: {error.strerror or error}") from error
    return decode_text(data, name=name or str(path), kind=kind)


def read_json(path: Path, *, kind: type[DMPError] = ConfigError) -> Any:
    """The content of a JSON file. Raises ``kind`` when it cannot be read or is not valid."""
    try:
        return json.loads(read_text(path, kind=kind))
    except (ValueError, RecursionError) as error:
        raise kind(f"{path} is not valid JSON: {error}") from error


def read_toml(path: Path, *, name: str | None = None) -> tuple[str, dict[str, Any]]:
    """The text of a TOML file and its content. Raises ConfigError when it cannot be read or is not valid."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    text = read_text(path, name=name)
    try:
        return text, tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name or path} is not valid TOML: {error}") from error
