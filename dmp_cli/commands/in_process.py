"""Running other commands inside this process, as a user would type them one after the other."""

from __future__ import annotations

import contextlib
import io
import shlex
from collections.abc import Iterator
from typing import Any

import typer


def run_inside(command: list[str], dmp: Any) -> None:
    """Run one command in this process, its output unseen; where it ends with an error or a signal, so does the caller.

    ``dmp`` is the root command, ``ctx.find_root().command``.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        code = dmp.main([*command, "--quiet"], standalone_mode=False, prog_name="dmp")
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
