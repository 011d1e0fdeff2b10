"""The files of a folder that ``dmp sample`` fills, by name: ``sampling`` writes them, and they may be data.

``samples.json`` says how the images were made, ``plan.jsonl`` which image is which. An image is a file of its own, or
in a tar with others of its group.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import DMPError

ABOUT, PLAN, GRID = "samples.json", "plan.jsonl", "grid.png"
SUMS = "SHA256SUMS"
RECORD_SUMS = f"{SUMS}.records"  # of samples.json and plan.jsonl
GROUP = 1000  # images in one tar
IMAGE, LATENT = ".png", ".latent.npy"
_NUMBERED = re.compile(r"(\d{6,12})(\.png|\.latent\.npy)")
_TAR = re.compile(r"samples-(\d{5,})\.tar")
_LINE = re.compile(r"([0-9a-f]{64})  ([\w.]+)")


def image_name(index: int, suffix: str = IMAGE) -> str:
    """The name of image ``index``, or of its latent, in the folder or in its tar."""
    return f"{index:06d}{suffix}"


def index_of(name: str, *suffixes: str) -> int | None:
    """The index of the image that a file of this name belongs to; None: it is none with one of these suffixes.

    Without ``suffixes``: the file is an image, or what is kept beside one.
    """
    match = _NUMBERED.fullmatch(name)
    if match is None or match[2] not in (suffixes or (IMAGE, LATENT)):
        return None
    index = int(match[1])
    return index if name == image_name(index, match[2]) else None


def is_tar_of_samples(name: str) -> bool:
    """Whether a tar of this name holds images of a folder of samples."""
    return _TAR.fullmatch(name) is not None


def tars_in(path: Path) -> list[Path]:
    """The tars of a folder of samples, in the order of their images."""
    return sorted(inner for inner in path.glob("samples-*.tar") if is_tar_of_samples(inner.name))


def parse_record_sums(data: bytes, *, path: Path, kind: type[DMPError]) -> dict[str, set[str]]:
    """Name of a record -> its SHA-256, as ``SHA256SUMS.records`` says; two while the record is replaced.

    Raises:
        DMPError: of ``kind``, for a line that is none of ours.
    """
    found: dict[str, set[str]] = {}
    for line in data.decode("ascii", "replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None or match[2] not in (ABOUT, PLAN):
            raise kind(f"{path} was changed: it holds the line {line[:80]!r}", hint="Remove it.")
        found.setdefault(match[2], set()).add(match[1])
    return found
