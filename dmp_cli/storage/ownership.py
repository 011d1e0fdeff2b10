"""A folder that one command owns: locked for the whole command, with a note of who holds it.

The lock is the system's, so that it ends with its process, however that ends. It says nothing about another machine on
some network disks; there the note counts. Both files are gone when the command has ended in any other way than by a
kill. A folder that was made only to be locked goes too.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from ..errors import ConfigError
from .atomic import cannot_write, write_json
from .partials import PARTIAL, host_name

_PATIENCE = 10.0  # seconds to wait for a holder that is about to begin or end, and cannot be named


def owner_files(folder: Path, *, part: str = "") -> tuple[Path, Path]:
    """The lock and the note of a folder, or of a ``part`` of it that can have an owner of its own."""
    return folder / f".owner{part}.lock", folder / f".owner{part}.json"


def is_of_owner(name: str) -> bool:
    """Whether a file of this name says who owns its folder, or a part of it, and is nothing of its content."""
    return name.startswith(".owner") and name.endswith((".lock", ".json"))


@contextlib.contextmanager
def own(folder: Path, *, command: str, part: str = "") -> Iterator[None]:
    """Context in which this process alone owns ``folder``, which is made if it is missing.

    Args:
        command: what the second one is told, such as ``dmp train``.
        part: a part of the folder that has an owner of its own, as ``-2-of-8``.

    Raises:
        ConfigError: another process owns it; nothing was changed.
        DMPError: the folder cannot be written.
    """
    folder = Path(folder)
    missing = _missing_of(folder)
    lock, note = owner_files(folder, part=part)
    held = _acquire(folder, lock, note)
    made = {path: identity_of(path) for path in missing}
    try:
        _check_note(folder, note)
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        write_json(note, {"command": command, "host": host_name(), "pid": os.getpid(), "since": now})
        try:
            yield
        finally:
            _remove(note)
    finally:
        _remove(lock)  # while it is held: whoever opened it before finds out that it is gone
        held.release()
        for path, identity in made.items():
            with contextlib.suppress(OSError):  # it is not empty
                if identity_of(path) == identity:
                    path.rmdir()


def check_unowned(folder: Path) -> None:
    """Raise ConfigError if a live process owns a part of ``folder``."""
    for lock in sorted(folder.glob(".owner*.lock")):
        held = FileLock(lock, timeout=0)
        try:
            held.acquire()
        except Timeout:
            raise _in_use(folder, lock.with_suffix(".json")) from None
        except OSError as error:
            raise cannot_write(folder, error) from error
        held.release()


def holder_of(folder: Path) -> str | None:
    """Which process owns ``folder`` or a part of it, in words; None: nobody does, or the one that did was killed."""
    for lock in sorted(folder.glob(".owner*.lock")):
        told = _read_note(lock.with_suffix(".json"))
        if told is None or (told.get("host") == host_name() and not _is_held(lock)):
            continue
        return f"{told.get('command')}, host {told.get('host')}, pid {told.get('pid')}"
    return None


def _is_held(lock: Path) -> bool:
    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except (Timeout, OSError, NotImplementedError):
        return True
    held.release()
    return False


def drop_owner(folder: Path) -> None:
    """Forget who owns ``folder``: to be called where it is known that nobody works there, such as on a lost machine."""
    for path in folder.glob(".owner*"):
        if is_of_owner(path.name):
            _remove(path)


def clear_owned(folder: Path) -> None:
    """Remove all that is in a folder but the files of its owner, who calls this."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif not is_of_owner(entry.name):
            entry.unlink(missing_ok=True)


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise ConfigError when ``path`` exists and ``force`` is off.

    An empty folder counts as not existing, and so does a folder that holds only what a killed process left half-written
    and the files of its owner.
    """
    path = Path(path)
    if force or not path.exists() or (path.is_dir() and is_untouched(path)):
        return
    raise ConfigError(f"{path} exists already", hint="Give another output with -o, or overwrite it with --force.")


def is_untouched(folder: Path, *, but: str | None = None) -> bool:
    """Whether a folder holds nothing but what a killed process left half-written, files of an owner, and ``but``."""
    names = (inner.name for inner in folder.iterdir())
    return all(name == but or name.endswith(PARTIAL) or is_of_owner(name) for name in names)


def _missing_of(folder: Path) -> list[Path]:
    """``folder`` and those of its parents that are not there yet, innermost first."""
    return [path for path in (folder, *folder.parents) if not os.path.lexists(path)]


def _acquire(folder: Path, lock: Path, note: Path) -> FileLock:
    """The lock, held, on the file that now lies at ``lock``: one that its last owner has removed locks nothing."""
    ends = time.monotonic() + _PATIENCE
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held = FileLock(lock, timeout=0)
            before = identity_of(lock)
            held.acquire()
        except Timeout:
            # Who is not named is beginning or ending. Who is named and gone may have left a child behind, which holds
            # the lock until it notices.
            if _is_alive(_read_note(note)) or time.monotonic() > ends:
                raise _in_use(folder, note) from None
            time.sleep(0.02)
            continue
        except NotImplementedError:  # this file system has no locks: the note has to do
            if _is_alive(_read_note(note)):
                raise _in_use(folder, note) from None
            return held
        except FileNotFoundError as error:
            if time.monotonic() > ends - _PATIENCE + 1:
                raise cannot_write(folder, error) from error
            continue  # its last owner has just removed the folder
        except FileExistsError:
            raise ConfigError(f"{folder} is a file, not a folder", hint="Give another output with -o.") from None
        except OSError as error:
            raise cannot_write(folder, error) from error
        if before is not None and before == identity_of(lock):
            return held
        held.release()


def _is_alive(told: dict[str, Any] | None) -> bool:
    """Whether a note names a process that may run: on another machine nobody can know."""
    pid = None if told is None else told.get("pid")
    return told is not None and (told.get("host") != host_name() or (isinstance(pid, int) and psutil.pid_exists(pid)))


def identity_of(path: Path) -> tuple[int, int] | None:
    """What tells a file or folder from another one that lies under the same path later; None: there is none."""
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return None
    return state.st_dev, state.st_ino


def _check_note(folder: Path, note: Path) -> None:
    """Raise ConfigError for the note of another machine, where this one cannot know whether its owner still runs."""
    told = _read_note(note)
    if told is not None and told.get("host") != host_name():
        raise ConfigError(
            f"{folder} is in use, or was left in use: {_in_words(told)}",
            hint=f"If it no longer runs on that machine, remove {note} and run this again.",
        )


def _in_use(folder: Path, note: Path) -> ConfigError:
    told = _read_note(note)
    who = "another process holds it" if told is None else _in_words(told)
    gone = "" if _is_alive(told) else f" If no process works there any more, remove {note.with_suffix('.lock')}."
    return ConfigError(
        f"{folder} is in use: {who}; nothing was changed",
        hint=f"Wait until it ends, stop it, or give another folder with -o.{gone}",
    )


def _in_words(told: dict[str, Any]) -> str:
    return f"{told.get('command')} holds it (host {told.get('host')}, pid {told.get('pid')}, since {told.get('since')})"


def _read_note(note: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(note.read_bytes()[:4096])
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
