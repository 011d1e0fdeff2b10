"""Running other commands inside this process, as a user would type them one after the other."""

from __future__ import annotations

import contextlib
import io
import shlex
from collections.abc import Iterator
from typing import Any

import typer


class Onlooker:
    """Who runs a ``dmp train`` inside this process and is told of it as it goes on: typer's ``obj`` of that command."""

    diverged: str | None = None  # why the training diverged, in a sentence

    def judge(self, step: int, loss: float) -> str:
        """Take note of the held-out loss after ``step``; why the run is to end now, empty: it goes on."""
        raise NotImplementedError


def run_inside(command: list[str], dmp: Any, *, onlooker: Onlooker | None = None) -> None:
    """Run one command in this process, its output unseen; where it ends with an error or a signal, so does the caller.

    ``dmp`` is the root command, ``ctx.find_root().command``.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        code = dmp.main([*command, "--quiet"], standalone_mode=False, prog_name="dmp", obj=onlooker)
    if code:
        raise typer.Exit(code)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Context in which torch uses one thread: on a model as small as the digits' a second costs more than it brings."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_shell(command: list[str]) -> str:
    """A command as one types it."""
    return shlex.join(["dmp", *command])
