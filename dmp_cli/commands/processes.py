"""How commands that share their work among processes begin: find the others, connect, and let one of them print."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .console import Printer

if TYPE_CHECKING:
    import torch

    from ..runtime import World


@contextlib.contextmanager
def together(device_name: str | None, printer: Printer) -> Iterator[tuple[World, torch.device]]:
    """Yields the processes this one was started with, connected, and its own device; only the first one prints."""
    from ..runtime import find_world, pick_device

    world = find_world()
    device = pick_device(world.own_device(device_name or "auto"))
    if not world.is_first:
        printer.quiet, printer.as_json = True, False
    with world.connected(device), world.speaking():
        yield world, device


@contextlib.contextmanager
def owning(folder: Path, command: str, world: World | None = None) -> Iterator[None]:
    """Context in which this command owns ``folder``; of several processes the first one does, for all of them.

    Raises:
        ConfigError: another command owns it, in every process.
    """
    from ..storage import own

    with contextlib.ExitStack() as held:

        def claim() -> None:
            held.enter_context(own(folder, command=command))

        if world is None:
            claim()
        else:
            world.tell(claim)
        yield
