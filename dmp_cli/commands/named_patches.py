"""Options that name a patch, as a path or as on the hub: what is named becomes a file that is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .options import Given


def found_here(given: Given, *names: str) -> Given:
    """``given``, where the options ``names`` hold paths: ``user/name[@revision]`` is found in the hub's local cache.

    Raises:
        PatchError: it is not there and may not be fetched, as --download allows, or cannot be.
    """
    told = {name: given.values[name] for name in names if given.values.get(name) is not None}
    download = bool(given.values.get("download"))
    return Given({**given.values, **{name: _find(value, download=download) for name, value in told.items()}})


def other_version_here(given: Given) -> Given:
    """The same of --against, whose value may be a folder too: what is not in the cache stays a path.

    It is a name for certain with a revision, or where --download allows to ask the hub.
    """
    from ..errors import PatchError
    from ..hub import read_name

    try:
        return found_here(given, "against")
    except PatchError:
        name = read_name(given.values["against"])
        if given.values.get("download") or name is None or name.revision is not None:
            raise
        return given


def _find(value: Any, *, download: bool) -> Any:
    from ..hub import find_patch, read_name

    if isinstance(value, list):
        return [_find(one, download=download) for one in value]
    path, colon, strength = str(value).rpartition(":")
    if not colon or read_name(path) is None or not _is_number(strength):
        path, colon, strength = str(value), "", ""
    if read_name(path) is None:
        return value
    return type(value)(f"{find_patch(Path(path), download=download)}{colon}{strength}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
