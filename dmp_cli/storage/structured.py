"""The one reader of JSON, JSON lines and TOML: bounded in size and depth, strict in what it takes.

A file of a stranger ends in one sentence here, whatever is in it: too large, too deep, a key that stands twice, half of
a surrogate pair. What the values must be is then said by a record of pydantic, see :func:`check_types`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError, DMPError
from .limits import SMALL, check_file, check_pipe
from .regular import open_regular
from .text import decode_text, read_text

_LONGEST_LINE = 1 << 20  # bytes of a line of a log
_DEEPEST = 64  # lists and objects within each other
_PART = re.compile(r"[\w\"'-]\s*\.")  # of a dotted key of TOML
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_NAMED_BYTES = range(0xDC80, 0xDD00)  # how Python writes the bytes of a file name that are no UTF-8
R = TypeVar("R", bound=BaseModel)


def parse_json(
    text: str, *, name: str, kind: type[DMPError] = ConfigError, paths: bool = False, first_line: int = 1
) -> Any:
    """The content of JSON text.

    Args:
        name: what messages call it.
        paths: whether it may hold file names whose bytes are no UTF-8, as records of ours do.
        first_line: the number of its first line, in a file of which it is a part.

    Raises:
        DMPError: of ``kind``: it is not valid, too deep, a key stands twice in one object, or it holds half of a
            surrogate pair; the message names the line.
    """
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        where = f"line {first_line + error.lineno - 1}, column {error.colno}"
        raise kind(f"{name} is not valid JSON: {error.msg} ({where})") from error
    except ValueError as error:  # a key that stands twice, or a number of thousands of digits
        raise kind(f"{name} is not valid JSON: {str(error).split(';')[0]}") from error
    except RecursionError as error:
        raise _too_deep(name, kind) from error
    _check(content, text, name=name, kind=kind, paths=paths, first_line=first_line)
    return content


def read_json(
    path: Path, *, name: str | None = None, kind: type[DMPError] = ConfigError, limit: int = SMALL, paths: bool = False
) -> Any:
    """The content of a JSON file, as :func:`parse_json`. Raises ``kind`` when it cannot be read or is not valid."""
    text = read_text(path, name=name, kind=kind, limit=limit)
    return parse_json(text, name=name or str(path), kind=kind, paths=paths)


def read_object(
    path: Path, *, kind: type[DMPError] = ConfigError, limit: int = SMALL, paths: bool = False
) -> dict[str, Any]:
    """The content of a JSON file that holds an object. Raises as :func:`read_json`, and when it is none."""
    content = read_json(path, kind=kind, limit=limit, paths=paths)
    if not isinstance(content, dict):
        raise kind(f"{path} is not a JSON object: it holds {_NOUNS.get(type(content), 'a number')}")
    return content


_NOUNS = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}


def parse_json_lines(text: str, *, name: str, kind: type[DMPError] = ConfigError) -> Iterator[tuple[int, Any]]:
    """The number and the content of each line of ``text`` that is not blank. Raises ``kind``, which names the line."""
    # splitlines() also splits at characters that JSON may contain
    for number, row in enumerate(text.split("\n"), start=1):
        if row.strip():
            yield number, parse_json(row, name=f"{name}, line {number}", kind=kind, first_line=number)


def read_json_lines(
    path: Path, *, name: str | None = None, kind: type[DMPError] = ConfigError, regular: bool = True
) -> Iterator[tuple[int, Any]]:
    """Like :func:`parse_json_lines`, of a file that is read line by line. ``regular``: see ``limits``."""
    told = name or str(path)
    check = check_pipe if not regular else check_file
    check(path, name=name, kind=kind)
    try:
        with open(path, "rb") as file:
            for number, row in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=1):
                place = f"{told}, line {number}"
                if len(row) == _LONGEST_LINE:
                    raise kind(f"{place} is longer than {_LONGEST_LINE:,} bytes")
                text = decode_text(row, name=place, kind=kind)
                if text.strip():
                    yield number, parse_json(text, name=place, kind=kind, first_line=number)
    except OSError as error:
        raise kind(f"cannot read {told}: {error.strerror or error}") from error


def whole_json_lines(path: Path, *, drop: Callable[[int], None]) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Number, bytes and content of each line of a file that is a JSON object; ``drop`` gets the numbers of the others.

    The file is read line by line, however long it is. Raises ConfigError when it cannot be read.
    """
    try:
        with open_regular(path) as file:
            for number, row in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=1):
                try:
                    text = row.decode("utf-8-sig" if number == 1 else "utf-8")
                    content = parse_json(text, name="", paths=True) if row.strip() else None
                except (ConfigError, UnicodeDecodeError):
                    content = None
                if isinstance(content, dict) and row.endswith(b"\n"):
                    yield number, row, content
                elif row.strip():
                    drop(number)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error


def read_toml(path: Path, *, name: str | None = None, regular: bool = True) -> tuple[str, dict[str, Any]]:
    """The text of a TOML file and its content. Raises ConfigError when it cannot be read or is not valid."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    text, told = read_text(path, name=name, regular=regular), name or str(path)
    # A key of many parts takes its parser a time that grows with their square.
    if any(len(_PART.findall(piece)) > _DEEPEST for line in text.split("\n") for piece in line.split("=")):
        raise _too_deep(told, ConfigError)
    try:
        content = tomllib.loads(text)
    except RecursionError as error:
        raise _too_deep(told, ConfigError) from error
    except ValueError as error:
        raise ConfigError(f"{told} is not valid TOML: {error}") from error
    _check(content, text, name=told, kind=ConfigError, paths=False, first_line=1)
    return text, content


def toml_text(content: dict[str, Any]) -> str:
    """``content`` as TOML, without what is None, which TOML cannot say. Text that is no Unicode is spelt."""
    import tomli_w

    return tomli_w.dumps(_without_none(content))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(one) for one in value]
    if isinstance(value, (bool, int, float)):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()


def line_of(text: str, key: str) -> int | None:
    """The line of a TOML file, from 1, on which ``key`` is given or a table of this name begins; None: not found."""
    told = re.compile(rf"""\s*(?:\[\s*)?["']?{re.escape(key)}["']?\s*[=\].]""")
    return next((number for number, line in enumerate(text.split("\n"), start=1) if told.match(line)), None)


def check_types(record: type[R], content: Any, *, name: str, kind: type[DMPError], hint: str | None = None) -> R:
    """``content`` as a record of pydantic. Raises ``kind``, which names the first field that is not as it must be."""
    try:
        return record.model_validate(content)
    except (ValidationError, RecursionError, OverflowError) as error:
        raise kind(f"{name} is not as it must be: {_explain(error)}", hint=hint) from error


def _explain(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "a value is out of all bounds"
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {reason}" if place else reason


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:60]!r} stands twice in one object")
    return content


def _check(content: Any, text: str, *, name: str, kind: type[DMPError], paths: bool, first_line: int) -> None:
    """Raise ``kind`` if ``content`` is nested too deeply, or holds half of a surrogate pair."""
    if text.count("[") + text.count("{") + text.count(".") > _DEEPEST and _depth(content) > _DEEPEST:
        raise _too_deep(name, kind)
    if "\\u" in text or "\\U" in text:
        for place, code in _half_pairs(text):
            if not (paths and code in _NAMED_BYTES):
                line = first_line + text.count("\n", 0, place)
                raise kind(f"{name} holds half of a surrogate pair, \\u{code:04x}, in line {line}")


def _depth(content: Any) -> int:
    deepest, rest = 0, [(content, 1)]
    while rest:
        value, depth = rest.pop()
        if isinstance(value, (dict, list)):
            deepest = max(deepest, depth)
            if deepest > _DEEPEST:
                break
            rest += [(inner, depth + 1) for inner in (value.values() if isinstance(value, dict) else value)]
    return deepest


def _half_pairs(text: str) -> Iterator[tuple[int, int]]:
    """Place and code of each escape that is half of a surrogate pair and has no other half beside it."""
    high: re.Match[str] | None = None
    for match in _ESCAPE.finditer(text):
        code = int(match[1], 16) if match[1] else -1
        low = 0xDC00 <= code < 0xE000
        paired = low and high is not None and high.end() == match.start()
        if high is not None and not paired:
            yield high.start(), int(high[1], 16)
        if low and not paired:
            yield match.start(), code
        high = match if 0xD800 <= code < 0xDC00 else None
    if high is not None:
        yield high.start(), int(high[1], 16)


def _too_deep(name: str, kind: type[DMPError]) -> DMPError:
    return kind(f"{name} is nested more than {_DEEPEST} levels deep")
