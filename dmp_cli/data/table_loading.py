"""Loads a table by ``datasets``: from the hub's cache, from a folder, or from parquet. Nothing of it is executed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..config import split_of
from ..errors import DataError

_ROOM = "It comes with pip install 'dmp-cli[remote]'."


class Table:
    """Some columns of a table, row by row. Images are not decoded: they are ``{"bytes": ..., "path": ...}``."""

    def __init__(self, dataset: Any, *, places: Sequence[str], origin: dict[str, str]) -> None:
        self._dataset, self._places, self.origin = dataset, list(places), origin

    @property
    def features(self) -> dict[str, Any]:
        """What ``datasets`` says of each column."""
        return dict(self._dataset.features)

    def of(self, names: Sequence[str]) -> Table:
        """The same rows of these columns alone."""
        import datasets

        dataset = self._dataset.select_columns(list(names)).with_format(None)
        for name, feature in dict(dataset.features).items():
            if type(feature).__name__ == "Image":
                dataset = dataset.cast_column(name, datasets.Image(decode=False))
        return Table(dataset, places=self._places, origin=self.origin)

    def pieces(self, column: str, size: int) -> Iterator[list[Any]]:
        """The values of a column, so many rows at once."""
        only = self._dataset.select_columns([column])
        for begin in range(0, len(only), size):
            yield [_as_image(value) for value in only[begin : begin + size][column]]

    def value(self, column: str, row: int) -> Any:
        """One cell."""
        return _as_image(self._dataset[row][column])

    def inside(self, path: str) -> str:
        """The path of an image's file. Raises ValueError for one outside of the data set, which a table may name."""
        real = os.path.realpath(path)
        if not any(real.startswith(os.path.join(os.path.realpath(place), "")) for place in self._places):
            raise ValueError(f"the table names {path}, which is not within the data set")
        return real


def _as_image(value: Any) -> Any:
    return {"bytes": value, "path": None} if isinstance(value, bytes) else value


def load_table(path: Path, name: str, *, download: bool) -> Table:
    """The table ``name``: ``user/name[:split]`` of the hub, a folder, or a .parquet file.

    Raises:
        DataError: ``datasets`` is not there, or finds or reads no table.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{path} is read by the library datasets, which is not installed", hint=_ROOM) from error
    name, split = split_of(name)
    is_here = os.path.exists(name)
    if (not is_here and name.startswith((".", "/", "~"))) or (name.endswith(".parquet") and not is_here):
        raise DataError(f"{path}: there is no {name}")
    with _quiet(datasets), _offline(datasets, unless=download or is_here):
        try:
            found = _load(datasets, name, is_here=is_here)
        except Exception as error:  # of many kinds: of the hub, of Arrow, of the files
            told = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            hint = "Check the name, or fetch it from the hub with --download." if not is_here else None
            if not is_here and not download and "offline" in str(error).lower():
                raise DataError(f"{path} is neither here nor in the local cache of datasets", hint=hint) from error
            raise DataError(f"{path}: datasets cannot read it: {told}", hint=hint) from error
    dataset = _choose_split(found, split, place=str(path))
    if getattr(dataset, "_indices", None) is not None:
        dataset = dataset.flatten_indices()
    places = [os.path.dirname(name) or "." if name.endswith(".parquet") else name] if is_here else _caches(datasets)
    return Table(dataset, places=places, origin=_origin(dataset, name, is_here))


def _caches(datasets: Any) -> list[str]:
    """Where what was fetched from the hub lies."""
    import huggingface_hub

    return [str(datasets.config.HF_DATASETS_CACHE), str(huggingface_hub.constants.HF_HUB_CACHE)]


def _load(datasets: Any, name: str, *, is_here: bool) -> Any:
    if is_here and name.endswith(".parquet"):
        return datasets.load_dataset("parquet", data_files={"train": name})
    saved = ("dataset_dict.json", "state.json")
    if is_here and any(os.path.exists(os.path.join(name, file)) for file in saved):
        return datasets.load_from_disk(name)
    return datasets.load_dataset(name)


def _choose_split(found: Any, split: str | None, *, place: str) -> Any:
    """One split of what was loaded: the one asked for, else train, else the only one."""
    if not isinstance(found, dict):
        if split not in (None, str(found.split)):
            raise DataError(f"{place} has no split {split}; it is one table")
        return found
    if split is None and ("train" in found or len(found) == 1):
        split = "train" if "train" in found else next(iter(found))
    if split not in found:
        told = "which split is meant" if split is None else f"a split {split}"
        raise DataError(f"{place} does not say {told}; it has {', '.join(found)}", hint="Write hf:NAME:SPLIT.")
    return found[split]


def _origin(dataset: Any, name: str, is_here: bool) -> dict[str, str]:
    """The commit that a data set of the hub is of; empty where it is not told, or the table is a folder's."""
    if is_here:
        return {}
    folders = {Path(file["filename"]).parent.name for file in dataset.cache_files}  # of the cache: called as the commit
    commits = [folder for folder in folders if re.fullmatch("[0-9a-f]{40}", folder)]
    return {name: commits[0]} if len(commits) == 1 else {}


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Context without its bars, which are no part of what a command prints."""
    silent, level = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not silent:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def _offline(datasets: Any, *, unless: bool) -> Iterator[None]:
    """Context in which neither ``datasets`` nor the hub's library asks the network, unless that is allowed."""
    import huggingface_hub

    places = [(datasets.config, "HF_HUB_OFFLINE"), (huggingface_hub.constants, "HF_HUB_OFFLINE")]
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, getattr(module, name) or not unless)
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)
