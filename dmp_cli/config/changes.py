"""How two records of settings differ, in words: ``steps 250, now 100``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Keys whose values are options or sizes: their own names say what they are. Others are named with what is around them.
_PLAIN = {"train", "patch", "sample", "sizes", "inputs"}
_LONG = 40  # letters of a value that are shown
_SHOWN = 6  # values


def describe_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Every value that differs, with both values; where the family of a network differs, its sizes are left out."""
    found = list(_changes(before, after, name=""))
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def _changes(before: Any, after: Any, *, name: str) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        family = [key for key in ("family",) if before.get(key) != after.get(key)]
        around = "" if name.split(" ")[-1] in _PLAIN else f"{name} "
        for key in family or list(dict.fromkeys([*after, *before])):
            inner = f"{around}{str(key).replace('_', '-')}".lstrip()
            yield from _changes(before.get(key), after.get(key), name=inner)
        return
    lists = isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)) and len(before) == len(after)
    if lists and max(len(_whole(before)), len(_whole(after))) > _LONG:
        number = next(k for k, (one, other) in enumerate(zip(before, after, strict=True)) if one != other)
        yield from _changes(before[number], after[number], name=f"{name} {number + 1}")
        return
    yield f"{name} {_shown(before)}, now {_shown(after)}"


def _whole(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ",".join(map(_whole, value))
    return str(value)


def _shown(value: Any) -> str:
    """A value in a few letters."""
    if isinstance(value, Mapping):
        return "set" if value else "none"
    whole = _whole(value)
    if len(whole) == 64 and all(letter in "0123456789abcdef" for letter in whole):  # a SHA-256
        return f"{whole[:12]}…"
    if isinstance(value, (list, tuple)) and len(whole) > _LONG:
        return f"{len(value)} values"
    return whole if len(whole) <= _LONG else f"{whole[:_LONG]}…"
