"""What is printed never ends a command: unknown characters are spelt, and a stream that is gone is let go."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from typing import Any

import pytest

from dmp_cli.errors import DMPError
from dmp_cli.runtime.streams import LastingStream, spell_characters

TEXT = "5.87 ± 0.03 … 狐.png Δ fid \udcff"


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "5.87 ± 0.03 … 狐.png Δ fid \\udcff"),
        ("latin-1", "5.87 ± 0.03 ... \\u72d0.png delta fid \\udcff"),
        ("cp1252", "5.87 ± 0.03 … \\u72d0.png delta fid \\udcff"),
        ("ascii", "5.87 +- 0.03 ... \\u72d0.png delta fid \\udcff"),
    ],
)
def test_unknown_characters_are_spelt(encoding: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    spell_characters()
    stream.write(TEXT)
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == expected  # type: ignore[attr-defined]


class Failing(io.StringIO):
    """A stream that fails as the system does."""

    number = 0

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE])
def test_a_stream_that_is_gone_takes_everything(number: int) -> None:
    stream = Failing()
    stream.number = number
    for drops in (False, True):
        print("a result", file=LastingStream(stream, drops=drops), flush=True)


def test_a_result_that_is_lost_is_an_error_and_a_remark_is_not() -> None:
    stream: Any = Failing()
    stream.number = errno.ENOSPC
    print("a remark", file=LastingStream(stream, drops=True))
    with pytest.raises(DMPError, match="cannot write to standard output: No space left on device"):
        print("a result", file=LastingStream(stream, drops=False))


def test_a_closed_pipe_changes_no_exit_code() -> None:
    code = "import sys; sys.argv = ['dmp', 'patch', '--info', 'none']; from dmp_cli.cli import main; main()"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=write)
    os.close(write)
    assert done.returncode == 1  # the file is missing; Python's own for a stream that cannot be flushed is 120
