"""A folder that keeps what was computed once, for all who need it: its ``manifest.json`` says what it was made from.

Any number of processes fill one: a file of it appears whole or not at all, and each is made under a lock of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from filelock import FileLock
from pydantic import BaseModel

from ..errors import ConfigError
from .atomic import make_folder, write_json
from .partials import PARTIAL
from .structured import check_types, read_object

MANIFEST = "manifest.json"
_LOCKS = ".locks"
R = TypeVar("R", bound=BaseModel)


class StoreFolder(Generic[R]):
    """The folder of a store, and the record of what is in it."""

    what: ClassVar[str]  # what messages call it, such as "latent store"
    option: ClassVar[str]  # that names its folder
    names: ClassVar[frozenset[str]] = frozenset()  # fields of the record that are for people and may differ
    words: ClassVar[Mapping[str, str]] = {}  # what a difference in a field means, where its values say little

    def __init__(self, path: Path, record: R) -> None:
        self.path, self.record = Path(path), record

    def is_whole(self) -> bool:
        """Whether nothing is left to write."""
        raise NotImplementedError

    def check(self) -> None:
        """Check that the folder is this store or may become it. Nothing is written.

        Raises:
            ConfigError: the folder holds other files, or another store; the message says what differs.
        """
        if self.path.exists() and not all(_belongs(inner.name) for inner in self.path.iterdir()):
            raise ConfigError(f"{self.path} holds other files", hint=f"Give an empty folder with {self.option}.")
        manifest = self.path / MANIFEST
        differing = self._differences(manifest) if manifest.exists() else []
        if differing:
            raise ConfigError(
                f"{self.path} is a {self.what} of something else: {'; '.join(differing)}",
                hint=f"Give another folder with {self.option}, or remove this one, so that it is made again.",
            )

    def claim(self) -> None:
        """Make the folder, or :meth:`check` the one that is there. Any number of processes may do so at once.

        Raises:
            ConfigError: see :meth:`check`.
            DMPError: the folder cannot be written.
        """
        self.check()
        if (self.path / MANIFEST).exists() and self.is_whole():
            return  # nothing is left to write: the disk may be read-only
        make_folder(self.locks)
        with FileLock(self.locks / "manifest"):
            if not (self.path / MANIFEST).exists():
                write_json(self.path / MANIFEST, self.record.model_dump(mode="json"))
        self.check()

    @property
    def locks(self) -> Path:
        """The folder of the locks that processes hold while they write. It stays: another may be about to lock."""
        return self.path / _LOCKS

    def _differences(self, manifest: Path) -> list[str]:
        there, ours = read_manifest(manifest, type(self.record)), self.record
        fields = [
            name
            for name in type(ours).model_fields
            if name not in self.names and getattr(there, name) != getattr(ours, name)
        ]
        return [self.words.get(name) or f"{name} {getattr(there, name)}, not {getattr(ours, name)}" for name in fields]


def read_manifest(manifest: Path, kind: type[R]) -> R:
    """What a store is, by its ``manifest.json``. Raises ConfigError when that cannot be read."""
    hint = "Remove the folder, so that it is made again."
    try:
        content: Any = read_object(manifest, paths=True)
    except ConfigError as error:
        raise ConfigError(error.message, hint=hint) from error
    return check_types(kind, content, name=str(manifest), kind=ConfigError, hint=hint)


def key_of(record: BaseModel, *, without: frozenset[str]) -> str:
    """SHA-256 over all fields of a record but those ``without``, as hex."""
    return hashlib.sha256(record.model_dump_json(exclude=set(without)).encode()).hexdigest()


def _belongs(name: str) -> bool:
    """Whether a file of this name may be in a store."""
    return name in (MANIFEST, _LOCKS) or name.endswith((PARTIAL, ".safetensors"))
