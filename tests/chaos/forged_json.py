"""Ways to forge JSON: values of other types and sizes, and texts that parsers disagree about."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

Way = Callable[[Any, random.Random], bytes]
_BIG = 10**30

# Values that no writer would write; the functions make what is large.
HOSTILE: tuple[Callable[[], Any], ...] = (
    *(lambda value=value: value for value in (None, True, False, 0, -1, 1, 2, 3, 7, -(2**63), 2**63, 2**64, 10**9)),
    *(lambda value=value: value for value in (10**12, _BIG, -_BIG, 0.5, -0.5, 1e308, 1e-320, 1e18)),
    *(lambda value=value: value for value in (float("nan"), float("inf"), -float("inf"))),
    *(
        lambda value=value: value
        for value in ("", "x", "a\0b", "\ud800", "\udcff.png", "../../etc/passwd", "/dev/zero")
    ),
    *(
        lambda value=value: value
        for value in ("1", "1e9", "nan", "true", "[1]", "\x1b[31mred", "\u202eabc", "%s{0}", "/")
    ),
    *(lambda value=value: value for value in ([], [[]], {}, {"": None}, [None], [0], [-1], ["x"], {"a": {"b": [1]}})),
    lambda: "x" * 1_000_000,
    lambda: [0] * 200_000,
    lambda: [[0, 1]] * 50_000,
    lambda: {str(i): i for i in range(20_000)},
    lambda: nested(400),
    lambda: {"a": nested(400)},
)


def nested(depth: int) -> Any:
    """Lists in lists, ``depth`` of them."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside ``value``, and of itself."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places_in(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:8]):
            yield from places_in(inner, (*path, index))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """``value`` with ``new`` at ``path``."""
    if not path:
        return new
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


def hostile(rng: random.Random) -> Any:
    return rng.choice(HOSTILE)()


def forge_value(value: Any, rng: random.Random) -> Any:
    """``value`` with a hostile value in one place."""
    return put(value, rng.choice(list(places_in(value))), hostile(rng))


def forge_some(value: Any, rng: random.Random) -> Any:
    """``value`` with hostile values in two places."""
    return forge_value(forge_value(value, rng), rng)


def nudge(value: Any, rng: random.Random) -> Any:
    """``value`` with one number or word changed to another that might have been written."""
    paths = [p for p in places_in(value) if p and isinstance(_at(value, p), (int, float, str))]
    if not paths:
        return forge_value(value, rng)
    path = rng.choice(paths)
    old = _at(value, path)
    if isinstance(old, bool):
        new: Any = not old
    elif isinstance(old, str):
        new = rng.choice((old[:-1], old + "0", old[::-1], old.upper(), old + "\n"))
    else:
        new = rng.choice((old + 1, old - 1, -old, old * 2, old * 1000, old / 2, 0, str(old)))
    return put(value, path, new)


def lose_a_field(value: Any, rng: random.Random) -> Any:
    paths = [p for p in places_in(value) if p and isinstance(p[-1], str)]
    if not paths:
        return forge_value(value, rng)
    value, path = copy.deepcopy(value), rng.choice(paths)
    del _at(value, path[:-1])[path[-1]]
    return value


def add_a_field(value: Any, rng: random.Random) -> Any:
    paths = [p for p in places_in(value) if isinstance(_at(value, p), dict)]
    if not paths:
        return forge_value(value, rng)
    name = rng.choice(
        ("", "x", "class", "self", "kind", "__class__", "__init__", "a b", "\ud800", "x" * 5000, "config")
    )
    return put(value, (*rng.choice(paths), name), hostile(rng))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


FORGERIES: dict[str, Callable[[Any, random.Random], Any]] = {
    forge.__name__: forge for forge in (forge_value, forge_some, nudge, lose_a_field, add_a_field)
}


def text_of(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _deep(value: Any, rng: random.Random) -> bytes:
    depth = rng.choice((900, 1_100, 5_000, 100_000))
    open_, close = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    inner = b"1" if open_ == b"[" or rng.random() < 0.5 else b""
    return open_ * depth + inner + close * depth


def _deep_inside(value: Any, rng: random.Random) -> bytes:
    depth, key = (
        rng.choice((900, 5_000, 100_000)),
        rng.choice(list(value)) if isinstance(value, dict) and value else "a",
    )
    text = text_of({**value, key: "PLACE"} if isinstance(value, dict) else {key: "PLACE"})
    return text.replace(b'"PLACE"', b"[" * depth + b"]" * depth)


def _repeat_a_key(value: Any, rng: random.Random) -> bytes:
    text = text_of(value)
    if not isinstance(value, dict) or not value:
        return text
    key = rng.choice(list(value))
    return text[:-1] + b"," + text_of({key: hostile(rng)})[1:-1] + b"}"


def _long_number(value: Any, rng: random.Random) -> bytes:
    text = text_of(put(value, rng.choice(list(places_in(value))), "PLACE"))
    digits = rng.choice(
        (b"9" * 4_000, b"9" * 5_000, b"1" + b"0" * 100_000, b"1e99999", b"-" + b"9" * 4_299, b"0.0" + b"1" * 9_999)
    )
    return text.replace(b'"PLACE"', digits)


def _other_encoding(value: Any, rng: random.Random) -> bytes:
    text = text_of(value).decode()
    return rng.choice(
        (
            *(b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16"), text.encode("utf-32"), text.encode("utf-16-be")),
            *(text.encode() + b"\0", b"\0" + text.encode(), b"\xff" + text.encode(), text.encode() + b"\xff"),
        )
    )


def _bad_text(value: Any, rng: random.Random) -> bytes:
    text = text_of(value)
    return rng.choice(
        (
            *(
                text + text,
                text + b"}",
                text[:-1],
                text.replace(b'"', b"'"),
                text.replace(b":", b"="),
                b"",
                b" ",
                b"\n",
            ),
            *(
                text.replace(b'":"', b'":"\xc3\x28', 1),
                text.replace(b'":"', b'":"\x00', 1),
                b"null",
                b"3",
                b'"x"',
                b"[]",
            ),
            *(b"// a comment\n" + text, text[:-1] + b",}", b"NaN", b"-Infinity", b"{}", b"[" + text + b"]"),
        )
    )


def _huge_line(value: Any, rng: random.Random) -> bytes:
    return text_of(put(value, rng.choice([p for p in places_in(value) if p] or [()]), "x" * 5_000_000))


TEXTS: dict[str, Way] = {
    "deep nesting": _deep,
    "deep nesting inside": _deep_inside,
    "a key twice": _repeat_a_key,
    "a long number": _long_number,
    "another encoding": _other_encoding,
    "bad text": _bad_text,
    "a huge string": _huge_line,
}

# Every way to forge a JSON file: name -> (value, rng) -> its bytes.
JSON_WAYS: dict[str, Way] = {
    **{name: (lambda value, rng, forge=forge: text_of(forge(value, rng))) for name, forge in FORGERIES.items()},
    **TEXTS,
}
