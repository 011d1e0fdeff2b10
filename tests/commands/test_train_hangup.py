"""``dmp train`` on a terminal that is closed: it saves and ends with 129, or goes on where it was told to (nohup)."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from dmp_cli.patching.file import load_patch


def start(options: list[str], *, nohup: bool) -> tuple[subprocess.Popen[bytes], int]:
    """Train on a terminal of its own; the process, and the other end of the terminal."""
    ours, theirs = os.openpty()

    def own_terminal() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        if nohup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = subprocess.Popen(
        [sys.executable, "-m", "dmp_cli", "train", *options],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        start_new_session=True,
        preexec_fn=own_terminal,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    os.close(theirs)
    return process, ours


@pytest.mark.slow
@pytest.mark.parametrize(("nohup", "code"), [(False, 128 + signal.SIGHUP), (True, 0)])
def test_a_closed_terminal(nohup: bool, code: int, backbone: list[str], images: Path, tmp_path: Path) -> None:
    out, steps = tmp_path / "out", "60" if nohup else "100000"
    options = ["--data", str(images), "--steps", steps, "--batch-size", "4", "--save-every", "5", "--workers", "1"]
    process, terminal = start([*backbone, *options, "-o", str(out)], nohup=nohup)
    while not list(out.glob("checkpoints/step-????????")) and process.poll() is None:
        time.sleep(0.01)
    os.close(terminal)
    if not nohup:
        process.send_signal(signal.SIGHUP)  # as the terminal's shell does too
    assert process.wait(timeout=120) == code
    record = load_patch(out / "patch.safetensors").record
    assert record is not None
    assert record.training is not None
    newest = max(int(path.name.removeprefix("step-")) for path in out.glob("checkpoints/step-????????"))
    assert record.training["steps_done"] == newest
    assert (newest == 60) == nohup
    assert not list(tmp_path.rglob("*.partial"))
