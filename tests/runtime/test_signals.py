"""Signals ask a loop for its end: a hang-up never counts as impatience, and what is ignored stays ignored."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from dmp_cli.errors import StoppedError
from dmp_cli.runtime.signals import STOP_SIGNALS, StopRequest, end_on_signals


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """The handlers of this process as they were, after each test."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_only_asks(number: int) -> None:
    before = signal.getsignal(number)
    with StopRequest() as request:
        assert request.number is None
        send(number)
        assert request.number == number
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_ends_at_once(second: int) -> None:
    with StopRequest() as request:
        send(signal.SIGTERM)
        with pytest.raises(StoppedError, match="at once by the second signal") as caught:
            send(second)
        assert caught.value.exit_code == 128 + second
        assert request.number == signal.SIGTERM


# A closed terminal sends SIGHUP, and its shell sends another; systemd sends SIGTERM and SIGHUP.
@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGHUP, signal.SIGHUP),
        (signal.SIGTERM, signal.SIGHUP),
        (signal.SIGHUP, signal.SIGTERM),
        (signal.SIGHUP, signal.SIGINT, signal.SIGHUP),
    ],
)
def test_a_hang_up_is_no_impatience(numbers: tuple[int, ...]) -> None:
    with StopRequest() as request:
        send(*numbers)
        assert request.number == numbers[0]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_what_was_ignored_at_the_start_stays_ignored(number: int) -> None:
    signal.signal(number, signal.SIG_IGN)
    end_on_signals()
    with StopRequest() as request:
        send(number, number)
        assert request.number is None
    assert signal.getsignal(number) == signal.SIG_IGN


def test_sigterm_is_never_ignored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_on_signals()
    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        send(signal.SIGTERM)


def test_outside_a_loop_a_hang_up_raises_once() -> None:
    end_on_signals()
    with pytest.raises(StoppedError, match="stopped by SIGHUP") as caught:
        send(signal.SIGHUP)
    assert caught.value.exit_code == 129
    send(signal.SIGHUP)  # meanwhile half-written files are removed
