"""dmp_cli.data.together: one process of a machine lists a folder, the others map the same."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from dmp_cli.data.bounds import Bounds
from dmp_cli.data.folder import find_images
from dmp_cli.data.source import ImageSource
from dmp_cli.data.together import find_together, hand_over, take_over
from dmp_cli.errors import DataError, DMPError
from dmp_cli.runtime.distributed import World

from .shard_files import write_tar
from .test_folder import fill, zipped

T = TypeVar("T")
COUNT = 3  # processes, two of them on one machine


class Thread(World):
    """A process of a World that is a thread here."""

    def __init__(self, rank: int, table: dict[str, Any], meeting: threading.Barrier) -> None:
        super().__init__(rank=rank, size=COUNT, local_rank=rank % 2)
        self._table, self._meeting = table, meeting

    def tell(self, make: Callable[[], T]) -> T:
        if self.is_first:
            self._table["told"] = make()
        self._meeting.wait(20)
        found: T = self._table["told"]
        self._meeting.wait(20)
        return found

    def each(self, make: Callable[[], None]) -> None:
        error = None
        try:
            make()
        except DMPError as raised:
            error = raised
        self._table[str(self.rank)] = error
        self._meeting.wait(20)
        errors = [self._table[str(rank)] for rank in range(COUNT)]
        self._meeting.wait(20)
        for found in errors:
            if found is not None:
                raise found


def together(path: Path) -> tuple[list[ImageSource | DMPError], list[int]]:
    """What each of three processes has found at ``path``, and which of them have listed it."""
    table: dict[str, Any] = {}
    meeting = threading.Barrier(COUNT)
    found: dict[int, ImageSource | DMPError] = {}
    listed: list[int] = []

    def work(rank: int) -> None:
        def find() -> ImageSource:
            listed.append(rank)
            return find_images(path)

        try:
            world = Thread(rank, table, meeting)
            found[rank] = find_together(find, world=world, path=path, bounds=Bounds())
        except DMPError as error:
            found[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(COUNT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [found[rank] for rank in range(COUNT)], sorted(listed)


def described(images: ImageSource) -> Any:
    """All that is known of the images of a source."""
    every = range(len(images))
    captions = [images.captions(i) if images.captioned[i] else None for i in every]
    told = [images.path, images.classes, images.labels.tolist(), images.fingerprint, images.rules, images.passed_over]
    return *told, [(images.name(i), images.stamp(i), images.read(i)) for i in every], captions


def flat(folder: Path) -> Path:
    return fill(folder, "b.png", "a.png", "c/../d.jpg") if folder.mkdir() is None else folder


def in_classes(folder: Path) -> Path:
    fill(folder, "in/dog/1.png", "in/cat/2.png", "in/cat/1.png", "in/cat/3.bmp")
    (folder / "in/classes.txt").write_text("dog\ncat\n")
    (folder / "in/cat/1.txt").write_text(" a cat \n")
    return folder


def with_lines(folder: Path) -> Path:
    fill(folder, "1.png", "2.png", "3.png")
    rows = [{"file_name": "1.png", "text": ["one", "eins"]}, {"file_name": "3.png", "text": ""}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def of_other_letters(folder: Path) -> Path:
    return fill(folder, "\udcff.png", "ä.png", "\U0001f408.png")


def in_a_zip(folder: Path) -> Path:
    fill(folder, "cat/1.png", "dog/2.png")
    archive = zipped(folder, folder.with_suffix(".zip"))
    data = archive.read_bytes()  # as some tools of Windows write names
    archive.write_bytes(data.replace(b"cat/1.png", b"cat\\1.png"))
    return archive


@pytest.mark.parametrize("make", [flat, in_classes, with_lines, of_other_letters, in_a_zip])
def test_all_have_what_one_lists(tmp_path, monkeypatch, make):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    Path(tempfile.gettempdir()).mkdir()
    path = make(tmp_path / "images")
    found, listed = together(path)
    assert listed == [0, 2]  # the first of each machine
    expected = described(find_images(path))
    assert [described(images) for images in found if isinstance(images, ImageSource)] == [expected] * COUNT
    mapped = found[1].table  # type: ignore[union-attr]
    assert isinstance(mapped.stamps, np.memmap)
    assert list(Path(tempfile.gettempdir()).iterdir()) == []  # nothing is left behind


def test_shards_and_errors_are_everybodys_own(tmp_path):
    write_tar(tmp_path / "0.tar", {"1.png": b"x", "1.cls": b"0"})
    found, listed = together(tmp_path / "0.tar")
    assert listed == [0, 1, 2]
    assert [one.fingerprint for one in found if isinstance(one, ImageSource)] == [
        find_images(tmp_path / "0.tar").fingerprint
    ] * COUNT
    found, _ = together(tmp_path / "missing")
    assert [error.message for error in found if isinstance(error, DMPError)] == [
        f"{tmp_path / 'missing'} does not exist"
    ] * COUNT
    assert all(isinstance(error, DataError) for error in found)


def test_without_room_everybody_lists(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    path = in_classes(tmp_path / "images")
    found, listed = together(path)
    assert listed == [0, 1, 2]
    assert len({str(described(images)) for images in found if isinstance(images, ImageSource)}) == 1


@pytest.mark.parametrize("name", ["about.json", "names.npy", "ends.npy", "stamps.npy", "captioned.npy"])
def test_what_is_cut_is_not_taken(tmp_path, name):
    path, place = in_classes(tmp_path / "images"), tmp_path / "handed"
    hand_over(find_images(path), place)  # type: ignore[arg-type]
    assert take_over(place, path=path, bounds=Bounds()) is not None
    (place / name).write_bytes((place / name).read_bytes()[:-1])
    assert take_over(place, path=path, bounds=Bounds()) is None
