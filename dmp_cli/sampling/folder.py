"""The folder that one ``sample`` command fills: numbered PNGs, a labelled grid, and samples.json: how they were made.

Several processes may fill one folder at once, each a part of the images. Each part writes its own images and its own
file of checksums. All other files are shared: they are written, and what a kill left half-written of them is removed,
only by a process that holds the lock ``.lock``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..config import describe_changes
from ..data import ABOUT, GRID, IMAGE, LATENT, PLAN, RECORD_SUMS, SUMS, image_name, index_of
from ..errors import ConfigError
from ..storage import holds, json_bytes, make_folder, refuse_existing, remove_partials, write_bytes
from .exports import draw_labelled_grid, write_npz
from .folder_images import FolderImages
from .folder_locks import LOCK, FolderLocks, may_be_left
from .folder_records import FolderRecords
from .folder_writer import FolderWriter, Write
from .part import Part
from .record import load_about
from .sums import SampleSums
from .tars import SampleTars

if TYPE_CHECKING:
    from .plan import Plan

_NPZ = "samples.npz"
_OTHERS = (ABOUT, PLAN, RECORD_SUMS, GRID, _NPZ)
_PIXEL_ORIGINS = ("device", "versions")  # origins that may move a pixel by a level; the others say where files lay


class SampleFolder:
    """Paths and files of one set of samples. Any number of processes may fill it, each its own :class:`Part`."""

    def __init__(self, path: Path, *, tar: bool = False) -> None:
        self.path = Path(path)
        files = {"plan": self.path / PLAN, "lock": self.path / LOCK}
        self._tars = SampleTars(self.path, **files, suffixes=lambda: self.suffixes)
        self._records, self._locks = FolderRecords(self.path), FolderLocks(self.path)
        self._sums = SampleSums(self.path, made=lambda: (self.recorded() or {}).get("made"))
        self._images = FolderImages(self.path, self._sums, self._tars)
        self._tar = tar

    @property
    def packs(self) -> bool:
        """Whether images are put into tars: because ``tar`` was asked for, or because the folder has tars already."""
        return self._tar or bool(self._tars.paths())

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of the files that each image has: its own, and that of its latent where samples.json says so."""
        keeps = self.recorded_made().get("latents") is not None
        return (IMAGE, LATENT) if keeps else (IMAGE,)

    def recorded_made(self) -> dict[str, Any]:
        """All that fixes the images, as samples.json says; empty when there is no such file."""
        return (self.recorded() or {}).get("made") or {}

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
        self._refuse_foreign(force=force)
        if force and self.path.exists():
            self._locks.check_idle()
        make_folder(self.path)
        with self._locks.shared():  # other parts may begin at the same moment
            return self._claim(about, origin=origin, num_images=num_images, force=force)

    def check(self, about: dict[str, Any], *, force: bool) -> None:
        """Raise as :meth:`open` would, and write nothing."""
        self._refuse_foreign(force=force)
        before = None if force else self.recorded()
        if before is not None:
            self._refuse_others(about, before)

    def _refuse_foreign(self, *, force: bool) -> None:
        if not force and self.path.exists():
            foreign = not all(may_be_left(inner.name) or inner.name == RECORD_SUMS for inner in self.path.iterdir())
            # samples.json is the first file: when another file of these samples is seen, it is there
            if foreign and not (self.path / ABOUT).exists():
                refuse_existing(self.path, force=False)

    def own(self, part: Part) -> contextlib.AbstractContextManager[None]:
        """Context in which this process alone draws ``part``. Raises ConfigError, which names the other process."""
        return self._locks.own(part)

    def _claim(self, about: dict[str, Any], *, origin: dict[str, Any], num_images: int, force: bool) -> list[str]:
        before = None if force else self.recorded()
        moved: list[str] = []
        if before is not None:
            known = before.get("origin", {})
            moved = sorted(key for key in _PIXEL_ORIGINS if key in known and known[key] != origin.get(key))
            self._refuse_others(about, before)
            num_images = max(num_images, int(before.get("num_images", 0)))
        else:
            self._clear()
        self._locks.remove_shared_halves()
        first = before["origin"] if before is not None and "origin" in before else origin
        about_bytes = json_bytes({"num_images": num_images, "made": about, "origin": first})
        self._records.write(ABOUT, lambda: [about_bytes])
        return moved

    def _refuse_others(self, about: dict[str, Any], before: dict[str, Any]) -> None:
        made = before.get("made", {})
        if "latents" in about and "latents" not in made:
            raise ConfigError(
                f"{self.path} was begun without latents",
                hint="Give another folder with -o, or draw these samples again with --force --keep-latents.",
            )
        differing = describe_changes({key: made.get(key) for key in about}, about)
        if differing:
            raise ConfigError(
                f"{self.path} holds samples made with other settings: {differing}",
                hint="Give another folder with -o, or replace these samples with --force.",
            )

    def _clear(self) -> None:
        images = [path for path in self.path.iterdir() if index_of(path.name) is not None]
        others = [*self._tars.paths(), *self._sums.paths(), *(self.path / name for name in _OTHERS)]
        for path in [*images, *others]:
            path.unlink(missing_ok=True)
        remove_partials(self.path)

    def write_plan(self, lines: Callable[[], Iterable[str]]) -> bool:
        """Keep ``lines``, a plan's JSON lines, unless the folder has a longer plan that begins with the same ones.

        Returns whether the plan that was there had been changed since it was written; then it is replaced.
        """

        def data() -> Iterator[bytes]:
            return (line.encode("utf-8", "backslashreplace") for line in lines())

        with self._locks.shared():
            changed = f"{PLAN} was changed" in self._records.faults()
            if changed or not self._records.begins_with(PLAN, data):
                self._records.write(PLAN, data)
        return changed

    def image_path(self, index: int) -> Path:
        """Where image ``index`` is, or will be, while it is in no tar."""
        return self.path / image_name(index)

    def has_sums(self) -> bool:
        """Whether the sum of any image is recorded."""
        return next(self._sums.lines(), None) is not None

    def missing(self, chunks: list[range], *, num_images: int) -> list[range]:
        """The chunks with an image or latent below ``num_images`` that is not there, or whose sum is not recorded."""
        return self._images.missing(chunks, num_images=num_images, suffixes=self.suffixes)

    def read(self, index: int) -> bytes:
        """The PNG file of image ``index``, from the folder or a tar. Raises DataError when it is not there."""
        return self._images.read(image_name(index))

    def pixels(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 (H, W, C)."""
        return np.atleast_3d(np.asarray(Image.open(io.BytesIO(self.read(index)))))

    def verify(self, num_images: int, *, latents: bool = True) -> list[str]:
        """One sentence for each image that is missing, was changed, or does not belong to the images 0..n-1.

        So for their ``latents``, unless these are not asked for.
        """
        suffixes = self.suffixes if latents else (IMAGE,)
        return self._records.faults() + self._images.faults(num_images, suffixes=suffixes, latents=latents)

    def remove_halves(self, part: Part, *, batch_size: int) -> None:
        """Remove images of this part that a kill left half-written; another part may be writing the others now."""
        self._locks.remove_own_halves(part, batch_size=batch_size)

    def writer(self, part: Part | None = None) -> contextlib.AbstractContextManager[Write]:
        """Context that yields what encodes and writes a chunk's images in a thread; see :class:`FolderWriter`."""
        name = SUMS if part is None or part.total == 1 else f"{SUMS}.{part.number + 1}-of-{part.total}"
        count = int((self.recorded() or {}).get("num_images", 0))

        def pack(indices: Iterable[int]) -> None:
            if self.packs:
                self._tars.pack(indices, count=count)

        return FolderWriter(self.path, self._sums, name, known=self._images.whole(), pack=pack).ahead()

    def write(self, images: Mapping[int, np.ndarray], latents: Mapping[int, np.ndarray] | None = None) -> None:
        """Write images, uint8 (H, W, C) by index, their latents where given, and their checksums."""
        FolderWriter(self.path, self._sums, SUMS, known=self._images.whole()).write(images, latents or {})

    def pack(self, num_images: int) -> None:
        """If this folder has tars, put the single image files into them, where the images of a tar are complete."""
        if self.packs:
            self._tars.pack(range(num_images), count=num_images)

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
