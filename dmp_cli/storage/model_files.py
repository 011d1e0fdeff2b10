"""Which files of a model's folder hold its weights: whole or in shards, in full precision or as a variant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..errors import CheckpointError
from .structured import read_object

_FORMATS = (".safetensors", ".bin")  # in the order of preference: one is read without a pickle
_SHARD = re.compile(r"-\d+-of-\d+")
_LAST = "non_ema"  # the weights beside their average


class ModelFiles(NamedTuple):
    """The weight files of a model."""

    files: list[Path]  # one, or its shards
    variant: str | None  # such as fp16; None: the files without a variant


class _Candidate(NamedTuple):
    name: str
    variant: str | None
    format: str


def find_model_files(folder: Path, stem: str) -> ModelFiles | None:
    """The weight files in ``folder`` whose names begin with ``stem``; None: there are none.

    Files without a variant come first, then variants by their name, and the weights beside an average last.

    Raises:
        CheckpointError: an index names files that are not there.
    """
    best = _best((path.name for path in folder.glob(f"{stem}*")), stem)
    if best is None:
        return None
    path = folder / best.name
    return ModelFiles(_shards(path) if path.suffix == ".json" else [path], best.variant)


def model_file_names(names: Iterable[str], stem: str) -> list[str]:
    """The same choice among the ``names`` of files that are not here: the fewest that make the model, with an index."""
    names = sorted(names)
    best = _best(names, stem)
    if best is None or not best.name.endswith(".json"):
        return [] if best is None else [best.name]
    start = stem if best.variant is None else f"{stem}.{best.variant}"
    shard = re.compile(re.escape(start) + r"-\d+-of-\d+" + re.escape(best.format))
    return [best.name, *(name for name in names if shard.fullmatch(name))]


def _best(names: Iterable[str], stem: str) -> _Candidate | None:
    """The file or the index to read, of those whose names begin with ``stem``; None: there is none."""
    shape = re.escape(stem) + r"(?:\.([\w-]+?))?(\.safetensors|\.bin)(\.index(?:\.([\w-]+))?\.json)?"
    found = []
    for name in names:
        match = re.fullmatch(shape, name)
        if match is None or _SHARD.search(name):
            continue
        variant = match[1] or match[4]
        order = (variant == _LAST, _FORMATS.index(match[2]), variant is not None, variant or "", bool(match[3]))
        found.append((order, _Candidate(name, variant, match[2])))
    return min(found)[1] if found else None


def variant_of(folder: Path, *stems: str) -> str | None:
    """The variant to ask a library for, where ``folder`` holds no weights without one; None: it needs none.

    Of several ``stems`` of names the first that is there counts.
    """
    found = (find_model_files(folder, stem) for stem in stems if folder.is_dir())
    return next((files.variant for files in found if files is not None), None)


def _shards(index: Path) -> list[Path]:
    names = read_object(index, kind=CheckpointError).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{index} names no weight files")
    files = [index.parent / Path(str(name)).name for name in sorted(set(names.values()))]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise CheckpointError(
            f"{index.parent} lacks {len(missing)} of the {len(files)} weight files that its index names, such as "
            f"{missing[0]}",
            hint="Copy or download the whole folder.",
        )
    return files
