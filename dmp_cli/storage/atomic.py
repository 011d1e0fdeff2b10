"""Files and folders that appear whole or not at all: write a partial file beside the target, fsync, rename.

Where the partial file lies, see ``partials``: several processes may write one path at the same time, and the last one
wins.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DMPError
from .partials import partial_of, remove_abandoned
from .regular import open_regular

if TYPE_CHECKING:
    from torch import Tensor

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_WRITERS = 8


def make_folder(path: Path, *, of: Path | None = None) -> None:
    """Make a folder and its parents, unless they exist. Raises DMPError, which names it or ``of``, when that fails."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(of or path, error) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file ``path`` by ``data`` in one step. On any failure the old file stays and nothing else is left.

    Raises:
        DMPError: it cannot be written.
    """
    path = Path(path)
    make_folder(path.parent, of=path)
    remove_abandoned(path)
    _replace(path, data)
    _sync_folder(path.parent)


def write_many(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Like :func:`write_bytes`, for several files of one folder by name. Each file is replaced in a step of its own."""
    folder = Path(folder)
    make_folder(folder)
    # Most of the time goes into waiting for the disk, and several files can wait at once.
    with ThreadPoolExecutor(_WRITERS) as writers:
        for written in [writers.submit(_replace, folder / name, data) for name, data in contents.items()]:
            written.result()
    _sync_folder(folder)


def _replace(path: Path, data: bytes) -> None:
    with _beside(path) as partial, open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path to write to; it is renamed to ``path`` when the block ends without an error, else it is removed."""
    partial = partial_of(path)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def append_text(path: Path, text: str, *, sync: bool = True) -> None:
    """Append lines to a file that only one process writes; a last line that a kill cut short is ended first.

    Args:
        sync: whether to wait until the lines are on the disk.

    Raises:
        DMPError: they cannot be written.
    """
    try:
        with open(path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                file.write(b"" if file.read(1) == b"\n" else b"\n")
            file.write(text.encode())
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Like :func:`write_bytes`, for data too large to hold in memory: write to the path that this yields."""
    path = Path(path)
    remove_abandoned(path)
    with _beside(path) as partial:
        yield partial
        _sync_file(partial)
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Like :func:`write_bytes`, for UTF-8 text. Bytes of a file name that are none are written as JSON writes them."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Like :func:`write_bytes`, for JSON with two spaces of indentation and a final newline."""
    write_bytes(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """The bytes that :func:`write_json` writes."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of detached copies of ``tensors``: the same bytes for the same content, every time."""
    from safetensors.torch import save

    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    # The library writes metadata in the order of a hash table, which changes from call to call; so we write it here.
    (length,) = struct.unpack("<Q", data[:8])
    header = {"__metadata__": dict(metadata)} | json.loads(data[8 : 8 + length])
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


@contextlib.contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it is renamed to ``path`` when the block ends without an error, else it is removed.

    Raises:
        DMPError: it cannot be written, or ``path`` is a folder that is not empty.
    """
    path = Path(path)
    partial = partial_of(path)
    remove_abandoned(path)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for entry in (partial, *partial.rglob("*")):
            _sync_folder(entry) if entry.is_dir() else _sync_file(entry)
        os.rename(partial, path)
        _sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    # Some systems and network disks cannot sync a folder. The files in it are whole all the same: at most, a crash of
    # the machine brings back the old files. So the write has not failed.
    with contextlib.suppress(OSError):
        _sync_file(path)


def cannot_write(path: Path, error: OSError) -> DMPError:
    """The error for a file or folder that could not be written."""
    if error.errno in _DISK_FULL:
        return DMPError(f"cannot write {path}: no space left on the disk", hint="Free some space and run it again.")
    # A folder's name that is that of a file is told in two ways, depending on who asks.
    reason = os.strerror(errno.ENOTDIR) if error.errno == errno.EEXIST else error.strerror
    return DMPError(f"cannot write {path}: {reason or error}")
