"""Files behind an address, such as https:// or s3://, read by ``fsspec``."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import DataError

# What file systems of fsspec call what tells two contents of one file apart, the surest first.
_SUMS = ("ETag", "etag", "md5", "md5Hash", "crc32c", "Content-MD5", "Digest")
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "created", "updated")
_SMALL, _SAMPLE = 1 << 20, 4096  # bytes of a file that is summed whole, and of each part of a larger one


class Described(NamedTuple):
    """What is known of a file without reading it."""

    size: int  # in bytes
    mark: str  # which a server gives to a content; where it gives none, a sum of some of its bytes


def describe(url: str) -> Described:
    """What the server says of a file. Raises DataError where it is not there, or has no size."""
    with reaching(url):
        system, inner = _system(url)
        told = system.info(inner)
        size = told.get("size")
        if not isinstance(size, int):
            raise DataError(f"{url}: its server does not say how large it is", hint="Fetch the shards by other means.")
        mark = next((str(told[name]) for name in (*_SUMS, *_TIMES) if told.get(name)), "").strip('"')
        return Described(size, mark or _sum_of_parts(url, size))


def _sum_of_parts(url: str, size: int) -> str:
    """SHA-256 of a small file, or of the beginning, the middle and the end of a large one."""
    starts = [0] if size <= _SMALL else [0, size // 2, size - _SAMPLE]
    length = size if size <= _SMALL else _SAMPLE
    parts = [read_range(url, start, start + length, whole=size) for start in starts]
    return f"sampled-{hashlib.sha256(b''.join(parts)).hexdigest()[:32]}"


def find_matching(pattern: str) -> list[str]:
    """The addresses that a pattern with ``*`` names, in order. Raises DataError where nobody answers."""
    with reaching(pattern):
        system, inner = _system(pattern)
        return sorted(system.unstrip_protocol(name) for name in system.glob(inner))


def read_range(url: str, begin: int, end: int, *, whole: int) -> bytes:
    """Bytes of a file behind an address.

    Raises:
        DataError: the server gives no ranges, or fewer bytes: it may hold another file by now.
    """
    system, inner = _system(url)
    content: bytes = system.cat_file(inner, start=begin, end=end)
    if len(content) == whole and (begin, end) != (0, whole):
        raise DataError(
            f"{url}: its server gives whole files only, no ranges of bytes",
            hint="Fetch the shards by other means, and give their folder.",
        )
    if len(content) != end - begin:
        raise DataError(f"{url} is another file than when it was listed: {len(content)} of {end - begin} bytes came")
    return content


def _system(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise DataError(
            f"{url} is read by the library fsspec, which is not installed", hint="pip install 'dmp-cli[remote]'."
        ) from error
    found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    return found


@contextlib.contextmanager
def reaching(url: str) -> Iterator[None]:
    """Context in which what a file system raises becomes one DataError that names the address."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        cause = error.__cause__  # fsspec says so too where a server does not answer
        if cause is None or isinstance(cause, FileNotFoundError):
            raise DataError(f"there is no {url}") from error
        raise _unreadable(url, cause) from error
    except ImportError as error:  # of the library for this kind of address
        raise DataError(f"{url}: {error}", hint="pip install 'dmp-cli[remote]', or the library it names.") from error
    except Exception as error:
        raise _unreadable(url, error) from error


def _unreadable(url: str, error: BaseException) -> DataError:
    told = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return DataError(f"{url} cannot be read: {told}", hint="Check the address, the network and the keys.")
