"""The members of one webdataset shard, listed once: which of them are a sample, and whether the tar is whole.

Members with one key are one sample. The key is a member's name up to the first dot of its last part, as webdataset has
it. An image with more dots in its name, such as ``22.05.jpg``, is a sample of its own, unless what stands between its
dots is a word, as in ``a.input.jpg``: then it is one of several images of the key ``a``, which nobody can choose from.
"""

from __future__ import annotations

import codecs
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from ..storage import decode_text, open_regular, parse_json
from .bounds import BOUNDS
from .dali_index import Member, count_samples, find_index, read_index
from .kinds import is_passed_over, is_read
from .metadata import texts_of
from .tars import TarHeaders

_CAPTIONS = ("txt", "json")  # extensions that hold a caption; of a JSON object its "text" or "caption"
_CLASS = "cls"
_WORD = re.compile(r"[a-z][a-z0-9_]*")
_BLOCK = 512  # bytes; a tar ends with blocks of zeros
_DIGITS = 32  # bytes of a class
MOST_CLASSES = 1_000_000  # the names of all classes up to the largest are kept


class Part(NamedTuple):
    """Where the bytes of a member are in its shard."""

    offset: int
    size: int


class Sample(NamedTuple):
    """One image, and what belongs to it."""

    name: str  # of the image member
    row: tuple[int, ...]  # image: offset, size; caption: offset, size, whether it is JSON; class. -1: there is none


class Members(NamedTuple):
    """What a shard holds."""

    samples: list[Sample]
    passed_over: list[str]  # images that are no sample: of kinds that are not read, or one of several of a key


Parts = dict[str, tuple[str, Part]]  # extension -> (member, place)


def list_members(shard: Path, *, rules: int) -> Members:
    """The samples of one shard that have an image, in the order of the shard.

    Raises:
        DataError: the shard is damaged, cut short or compressed; or a key has two images or a class that is no number.
    """
    keys: dict[str, Parts] = {}
    labels: dict[str, int] = {}  # name of a member -> the class in it
    with open_regular(shard) as file:
        indexed = read_index(shard, file=file.fileno())
        try:
            with TarHeaders(shard) as headers:
                for name, offset, size, is_sparse in _regular(headers) if indexed is None else indexed:
                    key, extension = _split(name)
                    if not key or not extension:
                        continue
                    if is_sparse:
                        raise _is_sparse(shard, name)
                    if extension in keys.setdefault(key, {}):
                        raise DataError(f"{shard} holds two members {name}")
                    keys[key][extension] = name, Part(offset, size)
                    if extension == _CLASS or (rules > 1 and extension.endswith(f".{_CLASS}")):
                        digits = os.pread(file.fileno(), min(_DIGITS, size), offset)
                        labels[name] = _label(digits, place=f"{shard}/{name}")
                end = headers.end
        except tarfile.ReadError as error:
            hint = "Shards are plain tar files, not compressed."
            raise DataError(f"cannot read {shard}: {error}", hint=hint) from error
        if rules > 1 and indexed is None:
            _check_whole(shard, os.pread(file.fileno(), _BLOCK, end), len(keys))
        found: list[Sample] = []
        passed: list[str] = []
        for key, parts in keys.items():
            for one in _divide(key, parts, passed) if rules > 1 else [parts]:
                sample = _sample(shard, one, labels, file.fileno(), rules)
                if sample is not None:
                    found.append(sample)
                elif rules > 1:
                    passed += [name for name, _ in one.values() if is_passed_over(name)]
    return Members(found, passed)


def _regular(headers: TarHeaders) -> Iterator[Member]:
    for member in headers:
        if member.isreg():
            yield Member(member.name, member.offset_data, member.size, member.issparse())


def _check_whole(shard: Path, end: bytes, keys: int) -> None:
    """Raise DataError for a tar that does not end with a block of zeros, unless its index says that it is whole."""
    if end == bytes(_BLOCK):
        return
    index = find_index(shard)
    counted = None if index is None else count_samples(index)
    if counted is not None and counted <= keys:
        return
    told = "" if counted is None else f" after {keys} of {counted} samples"
    raise DataError(
        f"{shard} is cut short: it ends{told} without the zeros that end a tar",
        hint="Fetch or make it again; where it is whole, write its index beside it with wds2idx.",
    )


def _divide(key: str, parts: Parts, passed: list[str]) -> Iterator[Parts]:
    """The samples of one key: what is named by the key alone, then each image with more dots in its name."""
    dotted = {extension.rpartition(".")[0] for extension in parts if "." in extension and is_read(f"x.{extension}")}
    several = {middle for middle in dotted if all(_WORD.fullmatch(word) for word in middle.split("."))}
    if not any("." not in extension and is_read(f"x.{extension}") for extension in parts):
        passed += [name for e, (name, _) in parts.items() if e.rpartition(".")[0] in several and is_read(f"x.{e}")]
    own = dotted - several
    yield {extension: part for extension, part in parts.items() if extension.rpartition(".")[0] not in own}
    for middle in sorted(own, key=list(dict.fromkeys(extension.rpartition(".")[0] for extension in parts)).index):
        yield {
            extension.rpartition(".")[2]: part
            for extension, part in parts.items()
            if extension.rpartition(".")[0] == middle
        }


def _sample(shard: Path, parts: Parts, labels: dict[str, int], file: int, rules: int) -> Sample | None:
    images = [extension for extension in parts if is_read(f"x.{extension}", rules) and "." not in extension]
    if not images:
        return None
    if len(images) > 1:
        names = " and ".join(parts[extension][0] for extension in images)
        raise DataError(f"{shard} holds two images of one key: {names}")
    captions = [extension for extension in _CAPTIONS if extension in parts]
    name, image = parts[images[0]]
    caption = parts[captions[0]][1] if captions else Part(-1, -1)
    is_json = captions[:1] == ["json"]
    if rules > 1 and is_json and _has_none(file, caption):
        caption, is_json = Part(-1, -1), False
    label = labels[parts[_CLASS][0]] if _CLASS in parts else -1
    return Sample(name, (*image, *caption, int(is_json), label))


def _has_none(file: int, part: Part) -> bool:
    """Whether a JSON object has no caption, or null. What cannot be read counts as one: it is said when it is used."""
    try:
        BOUNDS.check_note(part.size)
        text = decode_text(os.pread(file, part.size, part.offset), name="", kind=DataError)
        content = parse_json(text, name="", kind=DataError)
        return isinstance(content, dict) and not texts_of(content, place="")
    except (ValueError, DataError):
        return False


def _split(name: str) -> tuple[str, str]:
    """Split ``a/b.c.jpg`` into the key ``a/b`` and the extension ``c.jpg``, in lower case."""
    folder, _, file = name.removeprefix("./").rpartition("/")
    stem, _, extension = file.partition(".")
    return (f"{folder}/{stem}" if folder else stem) if stem else "", extension.lower()


def _label(text: bytes, *, place: str) -> int:
    try:
        label = int(text.removeprefix(codecs.BOM_UTF8))
    except ValueError:
        label = -1
    if label < 0:
        raise DataError(f"{place} is {text[:16]!r}, not the number of a class")
    if label >= MOST_CLASSES:
        raise DataError(f"{place} is {label}; the classes of a data set are 0 to {MOST_CLASSES - 1:,} at most")
    return label


def _is_sparse(shard: Path, name: str) -> DataError:
    return DataError(
        f"{shard}/{name} is a sparse member, whose bytes do not lie in one piece",
        hint="Make the shard again without tar --sparse.",
    )
