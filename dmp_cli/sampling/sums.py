"""The files ``SHA256SUMS``: the digest that each image of a folder had when it was written, as ``sha256sum`` keeps it.

One process writes ``SHA256SUMS``; each of several parts writes a file of its own, with its number behind that name.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..data import SUMS
from ..errors import DataError
from ..storage import append_text, open_regular
from .image_names import ImageNames

_MARK = "# samples made as "  # sha256sum passes over comments
_LINE = re.compile(r"([0-9a-f]{64})  (\d{6,}(?:\.png|\.latent\.npy))")  # names without folders
_LONGEST = 4096  # bytes of a line
_HASHERS, _AT_ONCE = 4, 500  # threads that hash images, and how many images a thread takes at a time


class SampleSums:
    """The checksums of one folder of samples.

    ``made`` returns what samples.json says of how these samples are made. Each file of checksums begins with a digest
    of that, so that a file which was copied from a folder of other samples is recognised and not used.
    """

    def __init__(self, path: Path, *, made: Callable[[], Any]) -> None:
        self.path, self._made = Path(path), made

    def paths(self) -> list[Path]:
        """The files of checksums in the folder."""
        return list(self.path.glob(f"{SUMS}*"))

    def names(self) -> ImageNames:
        """The images and latents whose SHA-256 is recorded."""
        return ImageNames(name for name, _ in self.lines())

    def lines(self) -> Iterator[tuple[str, str]]:
        """Name and SHA-256 of each image as it was written, line by line; two of one that two parts have drawn."""
        mark = self._mark()
        for path in self.paths():
            lines = _lines_of(path)
            first = next(lines, "")
            if first.startswith(_MARK) and first != mark:
                continue  # copied here from a folder of other samples
            for line in itertools.chain([first], lines):
                if match := _LINE.fullmatch(line):  # a kill may have cut the last line short
                    yield match[2], match[1]

    def append(self, name: str, images: Mapping[str, bytes]) -> None:
        """Add the checksums of ``images``, files by name, to the file of checksums called ``name``."""
        path = self.path / name
        head = [] if path.exists() else [self._mark() + "\n"]
        lines = [f"{hashlib.sha256(data).hexdigest()}  {image}\n" for image, data in images.items()]
        append_text(path, "".join(head + lines))

    def _mark(self) -> str:
        """The first line of a file of checksums: a comment with a digest of how these samples are made."""
        return _MARK + hashlib.sha256(json.dumps(self._made(), sort_keys=True).encode()).hexdigest()


def _lines_of(path: Path) -> Iterator[str]:
    """The lines of a file of checksums. Raises DataError when it cannot be read, or a line is no checksum."""
    try:
        with open_regular(path) as file:
            while row := file.readline(_LONGEST):
                if len(row) == _LONGEST:
                    raise DataError(f"{path} has a line that is no checksum", hint="Remove it: images are drawn anew.")
                yield row.decode("ascii", "replace").rstrip("\r\n")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def find_faults(
    names: Callable[[], Iterable[str]],
    *,
    sums: Iterable[tuple[str, str]],
    there: ImageNames,
    read: Callable[[str], bytes],
) -> list[str]:
    """One sentence for each of the images ``names`` that is missing or not as it was written.

    ``sums`` is what :meth:`SampleSums.lines` yields, ``there`` the names of all images in the folder; ``read`` returns
    the PNG file of one of them. Images are looked at in the order of the sums: to keep the sums would take memory.
    """
    wanted, recorded, sound = ImageNames(names()), ImageNames(), ImageNames()

    def are_sound(some: Sequence[tuple[str, str]]) -> list[str]:
        return [name for name, known in some if hashlib.sha256(read(name)).hexdigest() == known]

    def to_read() -> Iterator[tuple[str, str]]:
        for name, known in sums:
            recorded.add(name)
            if name in wanted and name in there:
                yield name, known

    for found in _by_threads(are_sound, to_read()):
        for name in found:
            sound.add(name)

    def judge(name: str) -> str | None:
        if name not in there:
            return f"{name} is missing"
        if name not in recorded:
            return f"{name} has no recorded checksum"
        return None if name in sound else f"{name} was changed"

    return [sentence for name in names() if (sentence := judge(name)) is not None]


def _by_threads(
    function: Callable[[Sequence[tuple[str, str]]], list[str]], items: Iterator[tuple[str, str]]
) -> Iterator[list[str]]:
    """``function`` of some items at once, in threads that are a few calls ahead: all at once would fill the memory."""
    with ThreadPoolExecutor(_HASHERS) as hashers:
        waiting: deque[Future[list[str]]] = deque()
        while some := list(itertools.islice(items, _AT_ONCE)):
            waiting.append(hashers.submit(function, some))
            if len(waiting) > 2 * _HASHERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
