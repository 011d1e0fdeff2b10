"""The folder that one ``sample`` command fills: numbered PNGs, a labelled grid, and samples.json: how they were made.

Several processes may fill one folder at once, each a part of the images. Each part writes its own images and its own
file of checksums. All other files are shared: they are written, and what a kill left half-written of them is removed,
only by a process that holds the lock ``.lock``.
"""

from __future__ import annotations

import contextlib
import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..config import describe_changes
from ..data import ABOUT, BOUNDS, GRID, GROUP, PLAN, RECORD_SUMS, SUMS, image_name, naming
from ..errors import ConfigError, DataError
from ..storage import holds, json_bytes, make_folder, refuse_existing, remove_partials, write_bytes, write_many
from .exports import draw_labelled_grid, write_npz
from .folder_locks import IMAGE, LOCK, FolderLocks, may_be_left
from .folder_records import FolderRecords
from .part import Part
from .record import load_about
from .sums import SampleSums, find_faults
from .tars import SampleTars

if TYPE_CHECKING:
    from .plan import Plan

_NPZ = "samples.npz"
_OTHERS = (ABOUT, PLAN, RECORD_SUMS, GRID, _NPZ)
_MOST_MISSING = 10_000  # images that are looked for in vain, where a record claims more than there are
_PIXEL_ORIGINS = ("device", "versions")  # origins that may move a pixel by a level; the others say where files lay
_BEHIND = 2  # chunks that may wait to be written


class SampleFolder:
    """Paths and files of one set of samples. Any number of processes may fill it, each its own :class:`Part`."""

    def __init__(self, path: Path, *, tar: bool = False) -> None:
        self.path = Path(path)
        self._tars = SampleTars(self.path, plan=self.path / PLAN, lock=self.path / LOCK)
        self._records, self._locks = FolderRecords(self.path), FolderLocks(self.path)
        self._sums = SampleSums(self.path, made=lambda: (self.recorded() or {}).get("made"))
        self._tar = tar

    @property
    def packs(self) -> bool:
        """Whether images are put into tars: because ``tar`` was asked for, or because the folder has tars already."""
        return self._tar or bool(self._tars.paths())

    def recorded(self) -> dict[str, Any] | None:
        """The content of samples.json; None when there is no such file. Raises ConfigError when it cannot be read."""
        return load_about(self.path / ABOUT)

    def open(self, about: dict[str, Any], *, origin: dict[str, Any], num_images: int, force: bool) -> list[str]:
        """Claim the folder for samples made as ``about`` says, or check that they continue the samples in it.

        ``origin`` says with which versions, on which device and from which paths the samples are made. Returns those
        of its keys that differ from when the folder was begun, and that may move a pixel by a level.

        Raises:
            ConfigError: the folder holds other samples or other files.
        """
        if not force and self.path.exists():
            foreign = not all(may_be_left(inner.name) or inner.name == RECORD_SUMS for inner in self.path.iterdir())
            # samples.json is the first file: when another file of these samples is seen, it is there
            if foreign and not (self.path / ABOUT).exists():
                refuse_existing(self.path, force=False)
        if force and self.path.exists():
            self._locks.check_idle()
        make_folder(self.path)
        with self._locks.shared():  # other parts may begin at the same moment
            return self._claim(about, origin=origin, num_images=num_images, force=force)

    def own(self, part: Part) -> contextlib.AbstractContextManager[None]:
        """Context in which this process alone draws ``part``. Raises ConfigError, which names the other process."""
        return self._locks.own(part)

    def _claim(self, about: dict[str, Any], *, origin: dict[str, Any], num_images: int, force: bool) -> list[str]:
        before = None if force else self.recorded()
        moved: list[str] = []
        if before is not None:
            known = before.get("origin", {})
            moved = sorted(key for key in _PIXEL_ORIGINS if key in known and known[key] != origin.get(key))
            made = before.get("made", {})
            differing = describe_changes({key: made.get(key) for key in about}, about)
            if differing:
                raise ConfigError(
                    f"{self.path} holds samples made with other settings: {differing}",
                    hint="Give another folder with -o, or replace these samples with --force.",
                )
            num_images = max(num_images, int(before.get("num_images", 0)))
        else:
            self._clear()
        self._locks.remove_shared_halves()
        first = before["origin"] if before is not None and "origin" in before else origin
        self._records.write(ABOUT, json_bytes({"num_images": num_images, "made": about, "origin": first}))
        return moved

    def _clear(self) -> None:
        images = [path for path in self.path.glob("*.png") if IMAGE.fullmatch(path.name)]
        others = [*self._tars.paths(), *self._sums.paths(), *(self.path / name for name in _OTHERS)]
        for path in [*images, *others]:
            path.unlink(missing_ok=True)
        remove_partials(self.path)

    def write_plan(self, text: str) -> bool:
        """Keep ``text``, a plan's JSON lines, unless the folder has a longer plan that begins with the same lines.

        Returns whether the plan that was there had been changed since it was written; then it is replaced.
        """
        data = text.encode("utf-8", "backslashreplace")
        with self._locks.shared():
            changed = f"{PLAN} was changed" in self._records.faults()
            if changed or not self._records.begins_with(PLAN, data):
                self._records.write(PLAN, data)
        return changed

    def image_path(self, index: int) -> Path:
        """Where image ``index`` is, or will be, while it is in no tar."""
        return self.path / image_name(index)

    def sums(self) -> dict[str, set[str]]:
        """Name of an image -> the SHA-256 it was written with; more than one where two parts have drawn it."""
        return self._sums.read()

    def missing(self, chunks: list[range], *, num_images: int) -> list[range]:
        """The chunks with an image below ``num_images`` that is not there, or whose checksum is not recorded."""
        there = self.sums().keys() & self._there()
        return [c for c in chunks if not all(self.image_path(i).name in there for i in c if i < num_images)]

    def _there(self) -> set[str]:
        """Names of all images in the folder. The single files are listed first: images move from there into tars."""
        beside = {path.name for path in self.path.glob("*.png") if path.name != GRID}
        return beside | self._tars.names()

    def read(self, index: int) -> bytes:
        """The PNG file of image ``index``, from the folder or a tar. Raises DataError when it is not there."""
        try:
            with naming(str(self.image_path(index))):
                return BOUNDS.read(self.image_path(index))
        except DataError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            return self._tars.read(index)

    def pixels(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 (H, W, C)."""
        return np.atleast_3d(np.asarray(Image.open(io.BytesIO(self.read(index)))))

    def verify(self, num_images: int) -> list[str]:
        """One sentence for each image that is missing, was changed, or does not belong to the images 0..n-1."""
        known, there = self.sums(), self._there()
        names = [self.image_path(index).name for index in range(min(num_images, len(there) + _MOST_MISSING))]
        wrong = self._records.faults() + find_faults(
            names, known=known, there=there, read=lambda name: self.read(int(name.split(".")[0]))
        )
        foreign = sorted(name for name in there if not IMAGE.fullmatch(name) or name not in known)
        return wrong + [f"{name} does not belong to these samples" for name in foreign if name not in names]

    def remove_halves(self, part: Part, *, batch_size: int) -> None:
        """Remove images of this part that a kill left half-written; another part may be writing the others now."""
        self._locks.remove_own_halves(part, batch_size=batch_size)

    @contextlib.contextmanager
    def writer(self, part: Part | None = None) -> Iterator[Callable[[Mapping[int, np.ndarray]], None]]:
        """Yields ``write``, which encodes and writes a chunk's images in a thread; at most two chunks wait for it.

        An error in the thread is raised by a later call of ``write``, or when the context is left. After the context
        everything is on the disk.
        """
        name = SUMS if part is None or part.total == 1 else f"{SUMS}.{part.number + 1}-of-{part.total}"
        known = self.sums().keys() & self._there()
        count = int((self.recorded() or {}).get("num_images", 0))

        def store(images: Mapping[int, np.ndarray]) -> None:
            self._write(images, name, known)
            if self.packs:
                self._tars.pack({index // GROUP for index in images}, count=count)

        with ThreadPoolExecutor(1) as pool:
            pending: deque[Future[None]] = deque()

            def write(images: Mapping[int, np.ndarray]) -> None:
                pending.append(pool.submit(store, dict(images)))
                while len(pending) > _BEHIND:
                    pending.popleft().result()

            yield write
            for written in pending:
                written.result()

    def write(self, images: Mapping[int, np.ndarray]) -> None:
        """Write images, uint8 (H, W, C) by index, as PNGs, and their checksums."""
        self._write(images, SUMS, self.sums().keys() & self._there())

    def _write(self, images: Mapping[int, np.ndarray], sums: str, known: Set[str]) -> None:
        """Images that are there with a ``known`` checksum stay; an image that a kill left without one is rewritten."""
        new = {
            self.image_path(index).name: encode_png(pixels)
            for index, pixels in images.items()
            if self.image_path(index).name not in known
        }
        write_many(self.path, new)
        if new:
            self._sums.append(sums, new)

    def pack(self, num_images: int) -> None:
        """If this folder has tars, put the single image files into them, where the images of a tar are complete."""
        if self.packs:
            self._tars.pack(range(-(-num_images // GROUP)), count=num_images)

    def write_npz(self, num_images: int, labels: np.ndarray | None) -> Path:
        """Write samples.npz, see :func:`exports.write_npz`: all images, and classes where ``labels`` gives them."""
        path = self.path / _NPZ
        with self._locks.shared():
            write_npz(path, self.pixels, num_images=num_images, labels=labels)
        return path

    def draw_grid(self, plan: Plan, *, rows: int, columns: int) -> Path:
        """Write grid.png: the first images, labelled with index and class or prompt."""
        path = self.path / GRID
        data = draw_labelled_grid(self.pixels, plan, rows=rows, columns=columns)
        with self._locks.shared():
            if not holds(path, data):
                write_bytes(path, data)
        return path


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of uint8 (H, W, 3) or (H, W, 1)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(buffer, format="PNG")
    return buffer.getvalue()
