"""A value that goes with what a thread does, past functions that know nothing of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

V = TypeVar("V")


class Ambient(threading.local, Generic[V]):
    """The value of the running thread; None outside of :meth:`given`."""

    def __init__(self) -> None:
        self.value: V | None = None

    @contextlib.contextmanager
    def given(self, value: V | None) -> Iterator[None]:
        """Context in which this is the value."""
        before, self.value = self.value, value
        try:
            yield
        finally:
            self.value = before
