"""What a folder or zip holds, as columns: a million file names as Python objects would take hundreds of megabytes.

The columns are arrays in memory, or files that are mapped: one process of a machine lists, the others map, see
:mod:`together`. n images.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .captions import CaptionColumns, Read, list_captions
from .classes import ClassNames, order_folders, positions
from .kinds import count_kinds
from .listing import Listing
from .packed_strings import PackedStrings

_ABOUT = "about.json"


class FolderTable(NamedTuple):
    """The images of a folder or zip, in their order."""

    prefix: str  # the folder, with its "/", that holds all of them; empty: they lie directly there
    rules: int
    passed_over: dict[str, int]  # suffix -> images of kinds that are not read
    classes: list[str]
    fingerprint: str
    names: PackedStrings  # relative to the prefix
    stamps: np.ndarray  # (n, 2): size, mark
    labels: np.ndarray  # (n,)
    captions: CaptionColumns


def make_table(
    found: Listing, *, prefix: str, named: ClassNames | None, rules: int, place: str, read: Read
) -> FolderTable:
    """The columns of what was ``found`` in ``place``; ``read`` reads a file of captions.

    Raises:
        DataError: a class folder has no name, or a file of captions is damaged.
    """
    sizes = found.images
    names = sorted(sizes, key=lambda name: name.split("/"))  # by class, then file: "/" is no letter
    folders = [name.rpartition("/")[0] for name in names]
    inner = {folder for folder in folders if folder}
    classes = [] if not inner else list(named.names) if named else order_folders(inner, rules=rules)
    position = positions(inner, named or ClassNames(tuple(classes), place))
    captions, signature = list_captions(names, notes=found.notes, place=place, read=read, prefix=prefix, rules=rules)
    # a zero byte ends the name, because no file name contains one
    rows = (b"%s\0%d\n" % (name.encode("utf-8", "surrogateescape"), sizes[name][0]) for name in names)
    return FolderTable(
        prefix=prefix,
        rules=rules,
        passed_over=count_kinds(found.passed_over),
        classes=classes,
        fingerprint=hashlib.sha256(b"".join(rows) + signature).hexdigest(),
        names=PackedStrings(names),
        stamps=np.array([sizes[name] for name in names], np.int64),
        labels=np.array([position.get(folder, 0) for folder in folders], np.int64),
        captions=captions,
    )


def write_table(folder: Path, table: FolderTable, **more: Any) -> None:
    """Write the columns into ``folder``, one file each; ``more``: what else :func:`map_table` returns."""
    names, captions = table.names, table.captions
    columns: dict[str, np.ndarray | None] = {
        "names": names.blob,
        "ends": names.ends,
        "stamps": table.stamps,
        "labels": table.labels,
        "captioned": captions.present,
        "line_counts": captions.ends,
    }
    for kind, strings in (("lines", captions.lines), ("files", captions.files)):
        columns |= {} if strings is None else {kind: strings.blob, f"{kind}_ends": strings.ends}
    for name, column in columns.items():
        if column is not None:
            np.save(folder / f"{name}.npy", column, allow_pickle=False)
    told = {name: getattr(table, name) for name in ("prefix", "rules", "passed_over", "classes", "fingerprint")}
    (folder / _ABOUT).write_text(json.dumps({"table": told, "more": more}), encoding="utf-8")


def map_table(folder: Path) -> tuple[FolderTable, dict[str, Any]]:
    """What :func:`write_table` wrote. Raises OSError, ValueError or KeyError for what is not whole."""
    told = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))

    def column(name: str) -> np.ndarray | None:
        file = folder / f"{name}.npy"
        if not file.exists():
            return None
        mapped: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
        return mapped

    def needed(name: str) -> np.ndarray:
        if (found := column(name)) is None:
            raise KeyError(name)
        return found

    def strings(name: str, ends: str) -> PackedStrings | None:
        blob = column(name)
        return None if blob is None else PackedStrings.packed(blob, needed(ends))

    captions = CaptionColumns(
        needed("captioned"), column("line_counts"), strings("lines", "lines_ends"), strings("files", "files_ends")
    )
    table = FolderTable(
        **told["table"],
        names=PackedStrings.packed(needed("names"), needed("ends")),
        stamps=needed("stamps"),
        labels=needed("labels"),
        captions=captions,
    )
    return table, told["more"]
