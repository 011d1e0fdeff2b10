"""What is printed never ends a command: a terminal may not know a character, and it may be gone.

Terminals that are not UTF-8 (Latin-1, cp1252) get plain letters for what they cannot show. What is written to a closed
terminal, or to a pipe that nobody reads any more, is dropped. What a file says never commands the terminal.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import logging
import os
import sys
import warnings
from typing import Any

from ..errors import DMPError, one_line, visible

_GONE = {errno.EIO, errno.EPIPE, errno.EBADF, errno.ENXIO}
_FORMAT_WARNING = warnings.formatwarning
_SPELLED = {"…": "...", "–": "-", "—": "-", "−": "-", "±": "+-", "×": "x", "Δ": "delta", "²": "2", "\u00a0": " "}
_SPELLED |= {"“": '"', "”": '"', "‘": "'", "’": "'", "←": "<-", "→": "->"}


def spell_characters() -> None:
    """Let stdout and stderr spell what they cannot encode: ``...`` for an ellipsis, ``\\u4e2d`` for other letters."""
    codecs.register_error("dmp.spell", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="dmp.spell")


def show_controls() -> None:
    """Let warnings of Python and lines of other libraries' logs show control characters instead of writing them."""
    warnings.formatwarning = _format_warning
    logging.setLogRecordFactory(_Record)


def _format_warning(message: Warning | str, *where: Any, **more: Any) -> str:
    return visible(_FORMAT_WARNING(one_line(str(message)), *where, **more))


class _Record(logging.LogRecord):
    """A line of a log."""

    def getMessage(self) -> str:
        return visible(super().getMessage())


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    told = "".join(_SPELLED.get(x) or x.encode("ascii", "backslashreplace").decode() for x in letters)
    return told, error.end


class LastingStream:
    """A text stream that can be written to even when it is gone.

    ``drops``: whether text that cannot be written for another reason, such as a full disk, is dropped too.
    """

    def __init__(self, stream: Any, *, drops: bool) -> None:
        self._stream, self._drops = stream, drops

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text``. Raises DMPError when it is lost, unless the reader is gone or this stream ``drops``."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._pass_over(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written; raises as :meth:`write`."""
        try:
            self._stream.flush()
        except OSError as error:
            self._pass_over(error)

    def _pass_over(self, error: OSError) -> None:
        if error.errno in _GONE:
            _let_go(self._stream)
        elif not self._drops:
            raise DMPError(f"cannot write to standard output: {error.strerror or error}") from error


def complain(text: str) -> None:
    """Print ``text`` on stderr, if there is somebody to read it."""
    if sys.stderr is not None:
        print(visible(text), file=LastingStream(sys.stderr, drops=True), flush=True)


def let_go_of_closed() -> None:
    """To be called at the end: else a stream that is gone would change the exit status, as Python flushes it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            if error.errno in _GONE:
                _let_go(stream)


def _let_go(stream: Any) -> None:
    """Let a stream that is gone write to nowhere, so that what it still holds can be flushed."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a stream of no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
