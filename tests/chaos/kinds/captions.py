"""Captions and classes beside images, forged: metadata.jsonl and .csv, NAME.txt, classes.txt and the JSON of shards."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dmp_cli.data import find_images
from tests.data.shard_files import png

from ..archive_files import tarred
from ..cases import Kind
from ..damage import DAMAGES
from ..forged_json import JSON_WAYS
from ..sound import Write
from .archives import read_all

_WORDS = (
    *(
        b"a fox",
        b"",
        b"\xff\xfea\0",
        b"\xef\xbb\xbfa fox",
        b"a\0b",
        b"\xed\xa0\x80",
        b"\xc3(",
        b"x" * 5_000_000,
        b"\n" * 1000,
    ),
    *(
        b"\r",
        b"a\rb",
        "\u2028".encode(),
        "\u202e".encode(),
        b"\x1b[31m",
        b"\x85",
        "é".encode("latin-1"),
        "é".encode("utf-16"),
    ),
)
_CSV = (
    *(
        b"file_name,text\n0000.png,a fox\n",
        b"file_name,text\n0000.png\n",
        b"file_name\n0000.png\n",
        b"text\na\n",
        b"file_name,text",
    ),
    *(
        b'file_name,text\n0000.png,"a fox\n',
        b"file_name,text\n0000.png,a,b,c\n",
        b"file_name;text\n0000.png;a\n",
        b"\0",
        b"file_name,text\n\n\n",
    ),
    *(
        b"file_name,text\n../0000.png,a\n",
        b"file_name,text,text\n0000.png,a,b\n",
        b'file_name,text\n"0000.png","' + b"x" * 200_000 + b'"\n',
    ),
    *(
        b"file_name,text\n0000.png,a\0b\n",
        b"file_name,file_name\n0000.png,a\n",
        b"," * 100_000,
        b"file_name,text\n" + b"0000.png,a\n" * 3,
    ),
)
_CLASS_LINES = (
    b"0\n1\n",
    b"1\n0\n",
    b"0\n",
    b"0\n0\n",
    b"0 0\n1 1\n",
    b"1 0\n2 1\n",
    b"9" * 5000 + b" 0\n1 1\n",
    b"\0\n",
    b"0\n1\n" + b"x\n" * 99,
)
_CLASS_LINES += (
    b"0\n1\n" + b"x" * 5_000_000,
    b"\xff\n",
    b"\xef\xbb\xbf0\n1\n",
    b"0\r1\r",
    b"",
    b"\n\n",
    "\u0660 0\n\u0661 1\n".encode(),
)


class Captions(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.images = {f"{index:04d}.png": png(index) for index in range(4)}
        self.lines = [{"file_name": name, "text": "a fox"} for name in self.images]
        sound = b"".join(json.dumps(line).encode() + b"\n" for line in self.lines)
        self.ways: dict[str, Write] = {
            **{f"metadata.jsonl, a line: {name}": self._line(way) for name, way in JSON_WAYS.items()},
            **{f"metadata.jsonl, {name}": self._bytes("metadata.jsonl", sound, way) for name, way in DAMAGES.items()},
            **{f"shard, JSON: {name}": self._shard(way) for name, way in JSON_WAYS.items()},
            "metadata.jsonl, long": self._long,
            "metadata.csv": lambda rng, place: self._put(place, "metadata.csv", rng.choice(_CSV)),
            **{f"metadata.csv, {name}": self._bytes("metadata.csv", _CSV[0], way) for name, way in DAMAGES.items()},
            "text beside": lambda rng, place: self._put(
                place, rng.choice(("0000.txt", "0001.caption")), rng.choice(_WORDS)
            ),
            "classes.txt": self._classes,
            "shard, text": lambda rng, place: self._write_shard(place, {"0001.txt": rng.choice(_WORDS)}),
        }

    def write(self, place: Path) -> None:
        self._put(place, "metadata.jsonl", json.dumps(self.lines[0]).encode())

    def _put(self, place: Path, name: str, data: bytes) -> None:
        (place / "data").mkdir()
        for image, content in self.images.items():
            (place / "data" / image).write_bytes(content)
        (place / "data" / name).write_bytes(data)

    def _line(self, way: Callable[[Any, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            at = rng.randrange(4)
            lines = [way(line, rng) if n == at else json.dumps(line).encode() for n, line in enumerate(self.lines)]
            self._put(place, "metadata.jsonl", b"\n".join(lines) + b"\n")

        return write

    def _bytes(self, name: str, sound: bytes, way: Callable[[bytes, random.Random], bytes]) -> Write:
        return lambda rng, place: self._put(place, name, way(sound, rng))

    def _long(self, rng: random.Random, place: Path) -> None:
        """Many lines, or many captions of one image."""
        many = [{"file_name": "0000.png", "text": ["a"] * 200_000}]
        lines = rng.choice(
            (many, [*self.lines * 1000], [{"file_name": f"{n}.png", "text": "x"} for n in range(20_000)])
        )
        self._put(place, "metadata.jsonl", b"\n".join(json.dumps(line).encode() for line in lines))

    def _shard(self, way: Callable[[Any, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            about = {"caption": "a fox", "text": "a fox", "cls": 1, "key": "0001", "width": 8}
            self._write_shard(place, {"0001.json": way(about, rng)})

        return write

    def _write_shard(self, place: Path, more: dict[str, bytes]) -> None:
        (place / "data.tar").write_bytes(tarred(dict(sorted({**self.images, **more}.items()))))

    def _classes(self, rng: random.Random, place: Path) -> None:
        for index, (name, data) in enumerate(self.images.items()):
            (place / "data" / str(index % 2)).mkdir(parents=True, exist_ok=True)
            (place / "data" / str(index % 2) / name).write_bytes(data)
        (place / "data" / "classes.txt").write_bytes(rng.choice(_CLASS_LINES))

    def open(self, place: Path, way: str) -> str | None:
        (path,) = place.iterdir()
        return read_all(find_images(path))
