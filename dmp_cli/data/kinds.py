"""Which files are images that are read, and which are images of kinds that are not.

``rules`` is the version of the rules by which a data set is listed. Runs keep the version that their record states, so
that they go on with the same images; where it states none, it is 1.

1: before AVIF, dotted keys, class folders as numbers, and captions in nested metadata.
2: before folders of ``dmp sample`` were listed by their own records; see ``own_samples``.
3: of new runs. A data set that the third rules say nothing of records the second, so that earlier versions go on too.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections import Counter
from collections.abc import Iterable, Mapping

RULES, BEFORE_SAMPLES = 3, 2
_FIRST = {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
_SECOND = {".apng", ".jpe", ".mpo"}  # PNG and JPEG under other names
_AVIF, _HEIF = {".avif"}, {".heic", ".heif"}
_OTHER = {  # of photographs and paintings; not of drawings in lines, such as SVG, and not of icons
    *(".3fr", ".arw", ".bpg", ".cr2", ".cr3", ".dcm", ".dds", ".dib", ".dng", ".exr", ".fits", ".flif", ".hdr", ".hif"),
    *(".j2c", ".j2k", ".jls", ".jp2", ".jpf", ".jpm", ".jpx", ".jxl", ".jxr", ".kra", ".nef", ".orf", ".pam", ".pcx"),
    *(".pfm", ".psb", ".psd", ".qoi", ".raf", ".raw", ".rw2", ".sgi", ".tga", ".wdp", ".xcf"),
}


@functools.cache
def reads_avif() -> bool:
    """Whether the Pillow that is installed reads AVIF."""
    from PIL import features

    return "avif" in features.get_supported_modules()


@functools.cache
def reads_heif() -> bool:
    """Whether pillow-heif is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def read_suffixes(rules: int = RULES) -> frozenset[str]:
    """The suffixes of image files that are read, in lower case."""
    return _suffixes(rules, reads_avif(), reads_heif())


@functools.cache
def _suffixes(rules: int, avif: bool, heif: bool) -> frozenset[str]:
    if rules < 2:
        return frozenset(_FIRST)
    return frozenset(_FIRST | _SECOND | (_AVIF if avif else set()) | (_HEIF if heif else set()))


def is_read(name: str, rules: int = RULES) -> bool:
    """Whether a file of this name is an image that is read."""
    return os.path.splitext(name)[1].lower() in read_suffixes(rules)


def is_passed_over(name: str, rules: int = RULES) -> bool:
    """Whether a file of this name is an image of a kind that is not read."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in (_OTHER | _SECOND | _AVIF | _HEIF) - read_suffixes(rules)


def count_kinds(names: Iterable[str]) -> dict[str, int]:
    """How many of the files have each suffix, the most frequent first."""
    counts = Counter(os.path.splitext(name)[1].lower() for name in names)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def describe_kinds(kinds: Mapping[str, int]) -> str:
    """``9 files passed over: 7 .jxl, 2 .psd``."""
    count = sum(kinds.values())
    named = ", ".join(f"{number:,} {suffix}" for suffix, number in kinds.items())
    return f"{count:,} {'file' if count == 1 else 'files'} passed over: {named}"


def hint_for_kinds(kinds: Mapping[str, int]) -> str:
    """What to do about files that are passed over."""
    if _HEIF & kinds.keys():
        return "pip install 'dmp-cli[heic]' reads HEIC; convert or remove the others."
    return "Convert them to PNG or JPEG, or remove them."


@functools.cache
def read_formats() -> tuple[str, ...]:
    """The names that Pillow has for the kinds that are read; pillow-heif is set up where it is installed.

    The list is fixed, because some of Pillow's other formats start another program (EPS runs Ghostscript).
    """
    more: tuple[str, ...] = ("AVIF",) if reads_avif() else ()
    if reads_heif():
        import pillow_heif

        pillow_heif.register_heif_opener()
        more += ("HEIF",)
    return ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", *more)
