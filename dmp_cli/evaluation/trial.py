"""The first image of a stranger's network, in a process of its own, which may take too long or die without harm."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from ..errors import MetricError
from ..storage import open_torchscript, physical_memory

IMAGE = (1, 3, 299, 299)  # what the network is tried on: zeros
_SECONDS = 300.0  # that it may take, torch's own start included
# The path of modules is handed on, and not the current folder: a torch.py there would be run.
_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from dmp_cli.evaluation.trial import answer
answer(sys.argv[2])
"""


def try_network(path: Path) -> tuple[int, ...]:
    """The shape of what the network of a TorchScript file gives for one image; it is run on the CPU.

    Raises:
        MetricError: it takes no image of that shape, takes too long, or ends its process, as with too little memory.
    """
    command = [sys.executable, "-I", "-c", _CODE, json.dumps(sys.path), str(path)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise MetricError(
            f"{path}: the network has not ended on one image after {_SECONDS:g} seconds",
            hint="It may loop without end. Score with another network.",
        ) from None
    if done.returncode:
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit status {done.returncode}"
        raise MetricError(
            f"{path}: the network ended the process that tried it on one image ({how})",
            hint="It may need more memory than there is. Score with another network.",
        )
    answered = json.loads(done.stdout.splitlines()[-1])
    if isinstance(answered, str):
        raise MetricError(f"{path}: the network does not take images of shape (B, 3, 299, 299): {answered}")
    return tuple(answered)


def answer(path: str) -> None:
    """In the other process: print the shape as JSON, or the first line of the network's error."""
    _limit_this_process()
    network = open_torchscript(Path(path))
    try:
        with torch.inference_mode():
            told: list[int] | str = list(network(torch.zeros(IMAGE)).shape)
    except (RuntimeError, AttributeError) as error:
        told = _reason(error)
    print(json.dumps(told))


def _reason(error: Exception) -> str:
    """The last line of what TorchScript says, behind where in its code the error was."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else type(error).__name__


def _limit_this_process() -> None:
    """So much memory and time that a network can use, and no more, should the parent be gone. Not on Windows."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        seconds = int(_SECONDS) * (os.cpu_count() or 1)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        memory = physical_memory() // 2
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
