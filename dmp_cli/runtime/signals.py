"""What Ctrl-C, SIGTERM and the end of a terminal (SIGHUP) do, and what is said about it at once.

A command ends where it stands. One that has a state to save takes a ``StopRequest`` for that time: it finishes its
step, saves and ends; a second Ctrl-C or SIGTERM ends it where it stands. A signal that the program was started to
ignore stays ignored: SIGHUP by ``nohup``, Ctrl-C by a shell that starts a job in the background. SIGTERM is never
ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from ..errors import EndedAtOnce

# A closed terminal may say so twice: its shell and the system each send SIGHUP. So it never counts as impatience.
_HANG_UP: int | None = getattr(signal, "SIGHUP", None)  # None on Windows
# The signals that ask for the end. Where processes received several, the last one here counts.
STOP_SIGNALS: tuple[int, ...] = (*([] if _HANG_UP is None else [_HANG_UP]), signal.SIGINT, signal.SIGTERM)
_NEW_LINE = "\r\x1b[2K"  # on a terminal: over a progress bar, which is then drawn again below

_received: list[int] = []  # the signals that ended this command


class Foresight(NamedTuple):
    """What a signal will do at this moment, as two parts of a sentence."""

    now: str  # what the first one does: "saving step 7"
    again: str  # what a second one does: "stop without saving"


class StopRequest:
    """Context in which the first signal only sets ``number``, which a loop reads between two steps, and says so.

    ``speaks``: whether this process is the one that says it.
    """

    def __init__(self, *, speaks: bool = False) -> None:
        self.number: int | None = None
        self._speaks = speaks
        self._foresee: Callable[[], Foresight] = lambda: Foresight("ending soon", "end at once")
        self._asked = False  # whether one of them was not SIGHUP
        self._before: dict[int, Any] = {}

    def foretell(self, foresee: Callable[[], Foresight]) -> None:
        """From now on, the first signal says what ``foresee`` returns, which is called in the signal's handler."""
        self._foresee = foresee

    def __enter__(self) -> StopRequest:
        self._before = _handle(STOP_SIGNALS, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            if handler is not None:  # else it was not set from Python, and cannot be set again from here
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number != _HANG_UP:
            if self._asked:
                _received.append(number)
                raise EndedAtOnce(
                    f"stopped at once by the second signal, {name_of(number)}",
                    signal_number=number,
                )
            self._asked = True
        if self.number is None:
            self.number = number
            if self._speaks:
                now, again = self._foresee()
                once_more = "press again" if number == signal.SIGINT else "send SIGTERM again"
                _say(f"{name_of(number)}: {now}; {once_more} to {again}")


def name_of(number: int) -> str:
    """A signal as people call it."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def end_on_signals() -> None:
    """Let a signal raise EndedAtOnce, so that half-written files are removed before the program ends."""
    _received.clear()

    def receive(number: int, frame: FrameType | None) -> None:
        if number == _HANG_UP and _received:  # the files are being removed
            return
        _received.append(number)
        raise EndedAtOnce(f"stopped by {name_of(number)}", signal_number=number)

    _handle(STOP_SIGNALS, receive)


def ended_by() -> int | None:
    """The number of the signal that ended this command. Libraries may have made another error of EndedAtOnce."""
    return _received[0] if _received else None


def end_silently_on_signals() -> None:
    """To be called when all is said: a further signal ends the program as the system does it, without a word."""
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)


def _say(text: str) -> None:
    """Print a line on stderr from a handler.

    The handler may have interrupted another print to the same stream. So it passes by the stream's buffer, which would
    refuse to be entered twice.
    """
    with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):  # nobody can read it
        try:
            number = sys.stderr.fileno()
        except OSError:  # a stream in memory
            sys.stderr.write(f"{text}\n")
            return
        line = f"{_NEW_LINE if os.isatty(number) else ''}{text}\n"
        os.write(number, line.encode("ascii", "backslashreplace"))


def _handle(numbers: Sequence[int], receive: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Set the handler of each signal that is not ignored; the handlers that were there before."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        return {}
    ignored = [n for n in numbers if n != signal.SIGTERM and signal.getsignal(n) == signal.SIG_IGN]
    return {number: signal.signal(number, receive) for number in numbers if number not in ignored}
