"""What Ctrl-C and SIGTERM do: the program finishes its step, saves and ends. A second signal ends it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from ..errors import StoppedError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Context in which the first signal only sets ``number``, which a loop reads between two steps."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
            self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise StoppedError("stopped at once by the second signal", signal_number=number)
        self.number = number


def end_on_sigterm() -> None:
    """Let SIGTERM raise an exception, so that half-written files are removed before the program ends."""

    def receive(number: int, frame: FrameType | None) -> None:
        raise StoppedError("stopped by SIGTERM", signal_number=number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, receive)
