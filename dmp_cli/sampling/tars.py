"""Samples kept in tar files instead of one file each: a webdataset of ``NNNNNN.png`` and its class or caption."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from filelock import FileLock

from ..errors import DataError
from ..storage import staged_file

GROUP = 1000  # images in one tar: group k holds those from k * GROUP on
Places = dict[str, tuple[int, int]]  # name of an image -> where its bytes begin in the tar, and how many they are
_TAR = re.compile(r"samples-(\d{5,})\.tar")


def tars_in(path: Path) -> list[Path]:
    """The tars of a folder of samples, in the order of their images."""
    return sorted(inner for inner in path.glob("samples-*.tar") if _TAR.fullmatch(inner.name))


class SampleTars:
    """The tars in one folder of samples. An image lies in a tar, or beside it until its group is complete."""

    def __init__(self, path: Path, *, plan: Path, lock: Path) -> None:
        self.path, self._plan, self._lock = path, plan, lock
        self._listed: dict[Path, tuple[tuple[int, int], Places]] = {}

    def paths(self) -> list[Path]:
        """The tars that are there, in the order of their images."""
        return tars_in(self.path)

    def names(self) -> set[str]:
        """Names of the images in all tars. Raises DataError for one that cannot be read."""
        return set().union(*(self._places(path) for path in self.paths()))

    def read(self, index: int) -> bytes:
        """The file of image ``index``. Raises DataError when it is in no tar."""
        path = self._tar_of(index // GROUP)
        name = f"{index:06d}.png"
        place = self._places(path).get(name)
        if place is None:
            raise DataError(f"there is no {name} in {path}")
        with path.open("rb") as file:  # a tar read by names would be searched from its beginning each time
            file.seek(place[0])
            return file.read(place[1])

    def pack(self, groups: Iterable[int], *, count: int) -> None:
        """Put the images of ``groups`` into their tars, where all of a group below ``count`` are there.

        Whole or not at all: until a tar has appeared, its images stay beside it. Any process may do it at any time.
        """
        for group in groups:
            members = range(group * GROUP, min((group + 1) * GROUP, count))
            if all(self._beside(index).exists() for index in members) or self._tar_of(group).exists():
                with FileLock(self._lock):
                    self._pack(group, members)

    def _pack(self, group: int, members: Sequence[int]) -> None:
        packed = self._places(self._tar_of(group)) if self._tar_of(group).exists() else {}
        beside = [index for index in members if self._beside(index).exists()]
        if not beside or not all(self._beside(i).exists() or self._beside(i).name in packed for i in members):
            return
        # Images beyond those that were asked for this time stay.
        members = sorted({*members, *(int(name.removesuffix(".png")) for name in packed)})
        notes = self._notes(members)
        with staged_file(self._tar_of(group)) as partial, tarfile.open(partial, "w") as archive:
            for index in members:
                path = self._beside(index)
                _add(archive, path.name, path.read_bytes() if path.exists() else self.read(index))
                for suffix, text in notes.get(index, {}).items():
                    _add(archive, f"{index:06d}.{suffix}", text.encode())
        for index in beside:
            self._beside(index).unlink(missing_ok=True)

    def _notes(self, members: Sequence[int]) -> dict[int, dict[str, str]]:
        """What the plan says of images, by the suffix under which a webdataset keeps it."""
        found: dict[int, dict[str, str]] = {}
        for line in self._plan.read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            if item["index"] in members:
                said = {"cls": item.get("class"), "txt": item.get("prompt")}
                found[item["index"]] = {suffix: str(value) for suffix, value in said.items() if value is not None}
        return found

    def _places(self, path: Path) -> Places:
        """The images in a tar. Raises DataError for one that cannot be read."""
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if self._listed.get(path, (None,))[0] != stamp:
                with tarfile.open(path) as archive:
                    images = [member for member in archive if member.name.endswith(".png")]
                self._listed[path] = stamp, {member.name: (member.offset_data, member.size) for member in images}
            return self._listed[path][1]
        except (OSError, tarfile.TarError) as error:
            raise DataError(
                f"cannot read {path}: {error}", hint="Remove it and run again: its images are drawn anew."
            ) from error

    def _beside(self, index: int) -> Path:
        return self.path / f"{index:06d}.png"

    def _tar_of(self, group: int) -> Path:
        return self.path / f"samples-{group:05d}.tar"


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)  # no time and no owner: the same images are the same tar
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))
