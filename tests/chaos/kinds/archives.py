"""Data sets in zips, tars and folders, damaged and forged: listed, and every image, class and caption read."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable
from pathlib import Path

from dmp_cli.data import ImageSource, decode, find_images
from dmp_cli.errors import DataError
from tests.data.shard_files import png

from ..archive_files import NAMES, TAR_WAYS, ZIP_WAYS, tarred
from ..array_files import zipped
from ..cases import Kind
from ..damage import DAMAGES
from ..sound import Write

_CLASSES = (
    b"9" * 21,
    b"-1",
    b"1.5",
    b"nan",
    b"",
    b"x",
    b"\xff\xfe1\0",
    b"1\n2",
    b"9" * 5000,
    b" 3 ",
    b"1e3",
    b"\0",
    b"[1]",
    b"4294967296",
)


class Archives(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.images = {f"{index:04d}.png": png(index) for index in range(4)}
        notes = {
            f"{index:04d}.{suffix}": data for index in range(4) for suffix, data in (("txt", b"a fox"), ("cls", b"1"))
        }
        self.samples = dict(sorted({**self.images, **notes}.items()))
        self.classed = {f"{index % 2}/{name}": data for index, (name, data) in enumerate(self.images.items())}
        self.ways: dict[str, Write] = {
            **{f"zip, bytes: {name}": self._bytes("data.zip", way) for name, way in DAMAGES.items()},
            **{f"zip: {name}": self._zip(way) for name, way in ZIP_WAYS.items()},
            **{f"tar, bytes: {name}": self._bytes("data.tar", way) for name, way in DAMAGES.items()},
            **{f"tar: {name}": self._tar(way) for name, way in TAR_WAYS.items()},
            "tar: classes": self._class_numbers,
            "folder": self._folder,
            "another kind": self._other_kind,
        }

    def write(self, place: Path) -> None:
        (place / "data.tar").write_bytes(tarred(self.samples))

    def _members(self, rng: random.Random) -> dict[str, bytes]:
        return dict(rng.choice((self.samples, self.images, self.classed)))

    def _bytes(self, name: str, way: Callable[[bytes, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            data = zipped(self._members(rng)) if name.endswith(".zip") else tarred(self.samples)
            (place / name).write_bytes(way(data, rng))

        return write

    def _zip(self, way: Callable[..., bytes]) -> Write:
        return lambda rng, place: (place / "data.zip").write_bytes(way(self._members(rng), rng))

    def _tar(self, way: Callable[..., bytes]) -> Write:
        return lambda rng, place: (place / "data.tar").write_bytes(way(dict(self.samples), rng))

    def _class_numbers(self, rng: random.Random, place: Path) -> None:
        members = {**self.samples, f"{rng.randrange(4):04d}.cls": rng.choice(_CLASSES)}
        (place / "data.tar").write_bytes(tarred(members))

    def _folder(self, rng: random.Random, place: Path) -> None:
        """A folder of images among pipes, links in a circle, links to devices, and names of every kind."""
        folder = place / "data"
        folder.mkdir()
        for name, data in self.images.items():
            (folder / name).write_bytes(data)
        name = rng.choice(
            (
                *[name for name in NAMES if "/" not in name and "\0" not in name and len(name) < 250],
                "0000.txt",
                "9999.png",
            )
        )
        path = folder / name
        path.unlink(missing_ok=True)
        rng.choice(
            (
                *(lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), lambda: path.symlink_to(path.name)),
                *(lambda: path.symlink_to("/etc/passwd"), path.mkdir, lambda: path.write_bytes(png(7)), path.touch),
                *(lambda: path.symlink_to("."), lambda: (folder / "\udcff.png").write_bytes(png(7))),
                *(lambda: (folder / "a").symlink_to("../data"), lambda: (path.touch(), os.truncate(path, 3 << 30))),
            )
        )()

    def _other_kind(self, rng: random.Random, place: Path) -> None:
        """A zip called .tar, a tar called .zip, an image or a text in their place, or a pipe."""
        tar, data = tarred(self.samples), zipped(self.samples)
        name = rng.choice(("data.zip", "data.tar"))
        if rng.random() < 0.1:
            os.mkfifo(place / name)
        else:
            (place / name).write_bytes(
                rng.choice((tar, data, png(0), b"hello\n", io.BytesIO().read(), b"\x1f\x8b" + tar))
            )

    def open(self, place: Path, way: str) -> str | None:
        (path,) = place.iterdir()
        return read_all(find_images(path))


def read_all(images: ImageSource) -> str | None:
    """Read every image, class and caption. An image that cannot be read may be refused, each in its own error."""
    refused = None
    for index in range(len(images)):
        try:
            image = decode(images.read(index), channels=3, name=images.name(index))
            if image.mode != "RGB" or not images.labels[index] >= 0:
                return "an image has another mode, or a class below zero"
        except DataError as error:
            refused = error
    for index in range(len(images)):
        if images.captioned[index]:
            try:
                "".join(images.captions(index)).encode()
            except DataError as error:
                refused = error
    if refused is not None:
        raise refused
    return None
