"""Signals ask a loop for its end: a hang-up never counts as impatience, and what is ignored stays ignored."""

from __future__ import annotations

import io
import os
import signal
import sys

import pytest

from dmp_cli.errors import EndedAtOnce
from dmp_cli.runtime.signals import STOP_SIGNALS, Foresight, StopRequest, end_on_signals, ended_by

pytestmark = pytest.mark.usefixtures("own_handlers")


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
        with pytest.raises(EndedAtOnce, match="at once by the second signal") as caught:
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
    with pytest.raises(EndedAtOnce, match="stopped by SIGTERM"):
        send(signal.SIGTERM)


def test_outside_a_loop_a_hang_up_raises_once() -> None:
    end_on_signals()
    with pytest.raises(EndedAtOnce, match="stopped by SIGHUP") as caught:
        send(signal.SIGHUP)
    assert caught.value.exit_code == 129
    send(signal.SIGHUP)  # meanwhile half-written files are removed


def test_no_library_takes_the_end_for_an_error_of_its_own() -> None:
    end_on_signals()
    assert ended_by() is None

    def decode() -> None:
        try:
            send(signal.SIGINT)
        except Exception:
            pytest.fail("it would be said that an image is damaged, and the command would go on")

    with pytest.raises(EndedAtOnce, match="stopped by Ctrl-C") as caught:
        decode()
    assert caught.value.exit_code == 130
    assert ended_by() == signal.SIGINT


def listening(*numbers: int, speaks: bool = True) -> StopRequest:
    """A request that has received ``numbers``, and foretells two things."""
    with StopRequest(speaks=speaks) as request:
        request.foretell(lambda: Foresight("saving step 7", "stop without saving"))
        send(*numbers)
    return request


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((signal.SIGINT,), "Ctrl-C: saving step 7; press again to stop without saving\n"),
        ((signal.SIGTERM,), "SIGTERM: saving step 7; send SIGTERM again to stop without saving\n"),
        (
            (signal.SIGHUP, signal.SIGINT, signal.SIGHUP),
            "SIGHUP: saving step 7; send SIGTERM again to stop without saving\n",
        ),
    ],
)
def test_the_first_signal_is_answered_once(
    numbers: tuple[int, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    listening(*numbers)
    assert capfd.readouterr().err == said


def test_a_process_that_does_not_speak_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    assert listening(signal.SIGINT, speaks=False).number == signal.SIGINT
    assert capfd.readouterr().err == ""


class Interrupted(io.RawIOBase):
    """Writes to a file descriptor; Ctrl-C comes in the middle of the first write."""

    def __init__(self, number: int) -> None:
        self.number, self.struck = number, False

    def fileno(self) -> int:
        return self.number

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        if not self.struck:
            self.struck = True
            send(signal.SIGINT)
        return os.write(self.number, data)  # type: ignore[arg-type]


def test_a_signal_in_the_middle_of_a_print_to_the_same_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    stream = io.TextIOWrapper(io.BufferedWriter(Interrupted(writer)), write_through=True)
    monkeypatch.setattr(sys, "stderr", stream)
    with StopRequest(speaks=True) as request:
        request.foretell(lambda: Foresight("saving step 7", "stop without saving"))
        print("train 6/10", file=sys.stderr, flush=True)  # holds the buffer's lock as the handler runs
    monkeypatch.undo()
    assert os.read(reader, 1000).decode().splitlines() == [
        "Ctrl-C: saving step 7; press again to stop without saving",
        "train 6/10",
    ]
    os.close(reader)


def test_on_a_terminal_the_answer_takes_the_line_of_the_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        listening(signal.SIGINT)
        monkeypatch.undo()
        said = os.read(ours, 1000).decode()
    os.close(ours)
    assert said == "\r\x1b[2KCtrl-C: saving step 7; press again to stop without saving\r\n"


@pytest.mark.parametrize("stream", [None, "closed", "gone"])
def test_nobody_to_tell_is_no_error(stream: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    gone = os.fdopen(writer, "w") if stream == "gone" else io.StringIO()
    if stream == "closed":
        gone.close()
    monkeypatch.setattr(sys, "stderr", None if stream is None else gone)
    number = listening(signal.SIGINT).number
    monkeypatch.undo()
    assert number == signal.SIGINT
    if stream != "gone":
        os.close(writer)
