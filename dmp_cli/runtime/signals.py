"""What Ctrl-C, SIGTERM and the end of a terminal (SIGHUP) do: the program finishes its step, saves and ends.

A second Ctrl-C or SIGTERM ends it at once. A signal that the program was started to ignore stays ignored: SIGHUP by
``nohup``, Ctrl-C by a shell that starts a job in the background. SIGTERM is never ignored.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any

from ..errors import StoppedError

# A closed terminal may say so twice: its shell and the system each send SIGHUP. So it never counts as impatience.
_HANG_UP: int | None = getattr(signal, "SIGHUP", None)  # None on Windows
# The signals that ask for the end. Where processes received several, the last one here counts.
STOP_SIGNALS: tuple[int, ...] = (*([] if _HANG_UP is None else [_HANG_UP]), signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Context in which the first signal only sets ``number``, which a loop reads between two steps."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._asked = False  # whether one of them was not SIGHUP
        self._before: dict[int, Any] = {}

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
                raise StoppedError("stopped at once by the second signal", signal_number=number)
            self._asked = True
        self.number = self.number or number


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP raise an exception, so that half-written files are removed before the program ends."""
    ended = False

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        if number == _HANG_UP and ended:  # the files are being removed
            return
        ended = True
        raise StoppedError(f"stopped by {signal.Signals(number).name}", signal_number=number)

    _handle([number for number in STOP_SIGNALS if number != signal.SIGINT], receive)


def _handle(numbers: Sequence[int], receive: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Set the handler of each signal that is not ignored; the handlers that were there before."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        return {}
    ignored = [n for n in numbers if n != signal.SIGTERM and signal.getsignal(n) == signal.SIG_IGN]
    return {number: signal.signal(number, receive) for number in numbers if number not in ignored}
