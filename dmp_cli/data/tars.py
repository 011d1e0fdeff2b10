"""The headers of a tar from anybody: no header takes more than a megabyte, and members are where they say they are."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..storage import open_regular

_HEADER = 1 << 20  # bytes of one header, such as a long name or the fields of PAX


class _Measured:
    """A file that ``tarfile`` reads: never more at once than a header may have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell, self.seek, self.close = file.tell, file.seek, file.close

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes" if size >= 0 else "a header of less than no bytes")
        return self._file.read(size)


class TarHeaders:
    """The members of a plain tar, in their order; a context that closes it.

    Raises:
        OSError: it is no regular file, or cannot be opened.
        tarfile.ReadError: it is compressed or damaged, or a member is not where it says it is.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = open_regular(path)
        self.end = 0  # where the last member ends, once all were seen

    def __enter__(self) -> TarHeaders:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        self._file.seek(0)
        measured: Any = _Measured(self._file)
        with _opened(measured) as archive:
            for member in _members(archive):
                archive.members = []  # type: ignore[attr-defined]  # the list would keep every header
                if member.size < 0 or member.offset_data < 0:  # some versions of tarfile would read it for ever
                    raise tarfile.ReadError(f"member {member.name} has {member.size:,} bytes")
                yield member
            self.end = archive.offset


@contextlib.contextmanager
def _one_error() -> Iterator[None]:
    """Context in which damage is one error: tarfile raises a different type for every way in which a header can lie."""
    try:
        yield
    except (OSError, tarfile.TarError):
        raise
    except (ArithmeticError, ValueError, LookupError, RecursionError, AttributeError, TypeError) as error:
        raise tarfile.ReadError(f"a header is damaged: {error}") from error


def _opened(file: Any) -> tarfile.TarFile:
    with _one_error():
        return tarfile.open(fileobj=file, mode="r:")


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members one after the other."""
    while True:
        with _one_error():
            member = archive.next()
        if member is None:
            return
        yield member
