"""Where the images of a run are, when they are no folder of this machine, and which columns of a table they are in."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import ClassVar

from .base import Growing, option

_PANEL = "Data elsewhere"
_HF = "hf:"
_ADDRESS = re.compile(r"([a-z][a-z0-9+]+):/+(?=[^/])")


class DataPlace(Growing):
    """Options of data that lie in a table, on the hub or behind an address."""

    later: ClassVar[frozenset[str] | None] = frozenset({"image_column", "caption_column", "label_column"})

    image_column: str | None = option(
        "The column of a table that holds the images, for --data hf:NAME or a .parquet.",
        shown="the only one with images",
        metavar="NAME",
        panel=_PANEL,
    )
    caption_column: str | None = option(
        "The column that holds the captions; none for none.",
        shown="one called text, caption or the like",
        metavar="NAME",
        panel=_PANEL,
    )
    label_column: str | None = option(
        "The column that holds the classes; none for none.",
        shown="one of class labels, or called label",
        metavar="NAME",
        panel=_PANEL,
    )
    cache_size: int = option(
        "GB of shards behind an address that are kept on this machine; what is beyond is read from there by ranges.",
        default=50,
        ge=0,
        panel=_PANEL,
    )


def table_name(path: str | Path) -> str | None:
    """What ``hf:NAME`` or a .parquet file names; None: it is no table."""
    text = str(path)
    if text.startswith(_HF):
        return text.removeprefix(_HF)
    return text if text.endswith(".parquet") and address(text) is None else None


def address(path: str | Path) -> str | None:
    """An address such as ``https://host/train-{000..146}.tar``, whose ``//`` a path has lost; None: a path here."""
    found = _ADDRESS.match(str(path))
    return None if found is None else f"{found[1]}://{str(path)[found.end() :]}"


def split_of(name: str) -> tuple[str, str | None]:
    """``user/name:split`` or ``folder:split`` as its two parts; a path that is there under the whole name has none."""
    rest, colon, split = name.rpartition(":")
    if not colon or os.path.exists(name) or not re.fullmatch(r"\w[\w.\-]*", split):
        return name, None
    return rest, split


def absolute_place(path: str | Path) -> str:
    """The same place as it can be named from any folder; links stay: what they lead to may have no suffix, or move."""
    text = str(path)
    if text.startswith(_HF):
        name, split = split_of(text.removeprefix(_HF))
        found = os.path.abspath(name) if os.path.exists(name) else name
        return _HF + found + ("" if split is None else f":{split}")
    return address(text) or os.path.abspath(text)


def place_name(path: Path) -> str:
    """A data set's name for people, in a line: of a path here its last part."""
    if str(path).startswith(_HF):
        name, split = split_of(str(path).removeprefix(_HF))
        return (os.path.basename(name.rstrip("/")) if os.path.exists(name) else name) + (f":{split}" if split else "")
    return path.name
