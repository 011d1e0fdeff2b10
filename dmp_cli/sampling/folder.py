"""The folder one ``sample`` command owns: numbered PNGs, a labelled grid, and samples.json: how they were made."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from filelock import FileLock
from PIL import Image

from ..errors import ConfigError
from ..storage import (
    PARTIAL,
    append_text,
    make_folder,
    refuse_existing,
    remove_partials,
    staged_file,
    write_bytes,
    write_json,
    write_many,
    write_text,
)
from .tars import GROUP, SampleTars

if TYPE_CHECKING:
    from .plan import Plan

_ABOUT, _PLAN, _GRID, _NPZ, _LOCK = "samples.json", "plan.jsonl", "grid.png", "samples.npz", ".lock"
_OTHERS = (_ABOUT, _PLAN, _GRID, _NPZ)
_SUMS = "SHA256SUMS"  # as sha256sum writes and checks it; of one of several parts with its number behind
_MARK = "# samples made as "  # sha256sum passes over comments
_SUM_LINE = re.compile(r"([0-9a-f]{64})  (\d{6,}\.png)")
_IMAGE = re.compile(r"\d{6,}\.png")
_HALF = re.compile(rf"\.(\d{{6,}})\.png{re.escape(PARTIAL)}")
_MOVES = ("device", "versions")  # what may move a pixel by a level; other origins are only where things lay
_BEHIND = 2  # chunks that may wait to be written
_HASHERS, _AT_ONCE = 4, 500  # images that one takes at a time
_LABEL = 24  # letters of a prompt under its image


class Part(NamedTuple):
    """Which of the fixed chunks one process draws: every ``total``-th, from ``number`` (from 0) on."""

    number: int = 0
    total: int = 1

    def of(self, chunks: list[range]) -> list[range]:
        """Its own chunks."""
        return chunks[self.number :: self.total]


class SampleFolder:
    """Paths and files of one set of samples. Any number of processes may fill it, each its own :class:`Part`."""

    def __init__(self, path: Path, *, tar: bool = False) -> None:
        self.path = Path(path)
        self._tars = SampleTars(self.path, plan=self.path / _PLAN, lock=self.path / _LOCK)
        self._tar = tar

    @property
    def packs(self) -> bool:
        """Whether images end up in tars: as asked for, or as those that are there did."""
        return self._tar or bool(self._tars.paths())

    def recorded(self) -> dict[str, Any] | None:
        """What samples.json says; None when there is none.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            content = json.loads((self.path / _ABOUT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise ConfigError(f"cannot read {self.path / _ABOUT}: {error}", hint="Start again with --force.") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{self.path / _ABOUT} is none of this tool's", hint="Start again with --force.")
        return content

    def open(self, about: dict[str, Any], *, origin: dict[str, Any], num_images: int, force: bool) -> list[str]:
        """Claim the folder for samples made as ``about`` says, or check that they continue those that are there.

        Returns what of ``origin`` (versions, device, paths: what may move a pixel by a level, or nothing) is not as it
        was when the folder was begun.

        Raises:
            ConfigError: the folder holds other samples or other files.
        """
        if not force and self.path.exists():
            names = {inner.name for inner in self.path.iterdir()}
            if _ABOUT not in names and not all(map(_belongs, names)):
                refuse_existing(self.path, force=False)
        make_folder(self.path)
        with FileLock(self.path / _LOCK):  # other parts may begin at the same moment
            return self._claim(about, origin=origin, num_images=num_images, force=force)

    def _claim(self, about: dict[str, Any], *, origin: dict[str, Any], num_images: int, force: bool) -> list[str]:
        before = self.recorded()
        moved: list[str] = []
        if before is not None and not force:
            known = before.get("origin", {})
            moved = sorted(key for key in _MOVES if key in known and known[key] != origin.get(key))
            changed = sorted(key for key in about if before.get("made", {}).get(key) != about[key])
            if changed:
                raise ConfigError(
                    f"{self.path} holds samples made otherwise ({', '.join(changed)} differ)",
                    hint="Give another -o, or replace them with --force.",
                )
            num_images = max(num_images, int(before.get("num_images", 0)))
        else:
            self._clear()
        for partial in self.path.glob(f".*{PARTIAL}"):
            if not _HALF.fullmatch(partial.name):  # images' are their part's to remove
                partial.unlink(missing_ok=True)
        first = before["origin"] if before is not None and not force and "origin" in before else origin
        write_json(self.path / _ABOUT, {"num_images": num_images, "made": about, "origin": first})
        return moved

    def _clear(self) -> None:
        images = [path for path in self.path.glob("*.png") if _IMAGE.fullmatch(path.name)]
        others = [*self._tars.paths(), *self.path.glob(f"{_SUMS}*"), *(self.path / name for name in _OTHERS)]
        for path in [*images, *others]:
            path.unlink(missing_ok=True)
        remove_partials(self.path)

    def write_plan(self, text: str) -> None:
        """Keep a plan's JSON lines, unless a longer one with this beginning is there."""
        path = self.path / _PLAN
        with FileLock(self.path / _LOCK):
            if not path.exists() or not path.read_text(encoding="utf-8").startswith(text):
                write_text(path, text)

    def image_path(self, index: int) -> Path:
        """Where image ``index`` is, or will be."""
        return self.path / f"{index:06d}.png"

    def sums(self) -> dict[str, set[str]]:
        """Name of an image -> the SHA-256 it was written with; several where parts made it twice."""
        found: dict[str, set[str]] = {}
        mark = self._mark()
        for path in self.path.glob(f"{_SUMS}*"):
            lines = path.read_text(encoding="ascii", errors="replace").splitlines()
            if lines and lines[0].startswith(_MARK) and lines[0] != mark:
                continue  # of samples made otherwise, whose files came among these
            for line in lines:
                if match := _SUM_LINE.fullmatch(line):  # a kill may have cut the last one short
                    found.setdefault(match[2], set()).add(match[1])
        return found

    def _mark(self) -> str:
        """The comment at the head of the sums: a digest of how these samples are made."""
        made = (self.recorded() or {}).get("made")
        return _MARK + hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()

    def missing(self, chunks: list[range], *, num_images: int) -> list[range]:
        """The chunks of which not every image below ``num_images`` is there, its sum recorded."""
        there = self.sums().keys() & self._there()
        return [c for c in chunks if not all(self.image_path(i).name in there for i in c if i < num_images)]

    def _there(self) -> set[str]:
        """Names of the images that are there; beside the tars first, as from there they move into them."""
        beside = {path.name for path in self.path.glob("*.png") if path.name != _GRID}
        return beside | self._tars.names()

    def read(self, index: int) -> bytes:
        """The PNG of image ``index``, wherever it lies. Raises DataError when it is not there."""
        try:
            return self.image_path(index).read_bytes()
        except FileNotFoundError:
            return self._tars.read(index)

    def pixels(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 (H, W, C)."""
        return np.atleast_3d(np.asarray(Image.open(io.BytesIO(self.read(index)))))

    def pack(self, num_images: int) -> None:
        """Put what lies beside the tars into them, if this folder has tars and their images are complete."""
        if self.packs:
            self._tars.pack(range(-(-num_images // GROUP)), count=num_images)

    def remove_halves(self, part: Part, *, batch_size: int) -> None:
        """Remove what a kill left half-written of this part's images; those of others may be being written."""
        for partial in self.path.glob(f".*{PARTIAL}"):
            match = _HALF.fullmatch(partial.name)
            if match and int(match[1]) // batch_size % part.total == part.number:
                partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def writer(self, part: Part | None = None) -> Iterator[Callable[[Mapping[int, np.ndarray]], None]]:
        """Yields ``write``, which encodes and writes a chunk's images behind the caller's back, two chunks at most.

        Errors come up at a later call, or when the context is left; then everything is on the disk.
        """
        name = _SUMS if part is None or part.total == 1 else f"{_SUMS}.{part.number + 1}-of-{part.total}"
        there = self._there()
        known = {image: sums for image, sums in self.sums().items() if image in there}
        count = int((self.recorded() or {}).get("num_images", 0))

        def store(images: Mapping[int, np.ndarray]) -> None:
            self._write(images, self.path / name, known)
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
        """Write images, uint8 (H, W, C) by index, as PNGs, and their sums."""
        there = self._there()
        self._write(images, self.path / _SUMS, {name: sums for name, sums in self.sums().items() if name in there})

    def _write(self, images: Mapping[int, np.ndarray], sums: Path, known: dict[str, set[str]]) -> None:
        """Those that are there, their sum ``known``, stay; what a kill left without a sum is written again."""
        new = {
            self.image_path(index).name: encode_png(pixels)
            for index, pixels in images.items()
            if self.image_path(index).name not in known
        }
        write_many(self.path, new)
        if not new:
            return
        head = [] if sums.exists() else [self._mark() + "\n"]
        lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in new.items()]
        append_text(sums, "".join(head + lines))

    def verify(self, num_images: int) -> list[str]:
        """What is wrong with the images 0..n-1, in words: missing, changed since they were written, or foreign."""
        known, names = self.sums(), [self.image_path(index).name for index in range(num_images)]
        there = self._there()

        def judge(name: str) -> str | None:
            if name not in there:
                return f"{name} is missing"
            if name not in known:
                return f"{name} has no recorded sum"
            digest = hashlib.sha256(self.read(int(name.removesuffix(".png")))).hexdigest()
            return None if digest in known[name] else f"{name} was changed"

        def judge_all(some: list[str]) -> list[str]:
            return [said for name in some if (said := judge(name)) is not None]

        # A future for every image would hold more memory than all else.
        groups = [names[first : first + _AT_ONCE] for first in range(0, len(names), _AT_ONCE)]
        with ThreadPoolExecutor(_HASHERS) as hashers:
            wrong = [said for found in hashers.map(judge_all, groups) for said in found]
        foreign = sorted(name for name in there if not _IMAGE.fullmatch(name) or name not in known)
        return wrong + [f"{name} is not of these samples" for name in foreign if name not in names]

    def write_npz(self, num_images: int, labels: np.ndarray | None) -> Path:
        """All images as ``arr_0`` (N, H, W, C) uint8, classes as ``arr_1``: ADM's evaluation format, one at a time."""
        path = self.path / _NPZ
        first = self.pixels(0)
        with staged_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            with archive.open("arr_0.npy", "w", force_zip64=True) as entry:
                header = {"descr": "|u1", "fortran_order": False, "shape": (num_images, *first.shape)}
                np.lib.format.write_array_header_1_0(entry, header)
                for index in range(num_images):
                    entry.write(self.pixels(index).tobytes())
            if labels is not None:
                with archive.open("arr_1.npy", "w") as entry:
                    np.lib.format.write_array(entry, labels)
        return path

    def draw_grid(self, plan: Plan, *, rows: int, columns: int) -> Path:
        """A grid of the first images, labelled with index and class."""
        from ..report import draw_image_grid

        indices = range(min(plan.config.num_images, rows * columns))
        images = [self.pixels(index) for index in indices]
        labels = []
        for index in indices:
            item = plan.item(index)
            said = f"class {item.label}" if item.label is not None else _short(item.prompt or "")
            labels.append(f"{index}: {said}" if said else f"{index}")
        path = self.path / _GRID
        write_bytes(path, draw_image_grid(images, rows=rows, columns=columns, labels=labels))
        return path


def _belongs(name: str) -> bool:
    """Whether a file of this name may be in a folder that is about to be claimed: only what a kill or a lock left."""
    return name == _LOCK or name.endswith(PARTIAL)


def _short(text: str) -> str:
    return text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of uint8 (H, W, 3) or (H, W, 1)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(buffer, format="PNG")
    return buffer.getvalue()
