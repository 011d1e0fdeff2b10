"""Being one of several processes: what commands that share their work do before anything else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .console import Printer

if TYPE_CHECKING:
    import torch

    from ..runtime import World


@contextlib.contextmanager
def together(options: dict[str, Any], printer: Printer) -> Iterator[tuple[World, torch.device]]:
    """The processes this one was started with, connected, and its own device; all but the first keep quiet."""
    from ..runtime import find_world, pick_device

    world = find_world()
    device = pick_device(world.own_device(options.get("device") or "auto"))
    if not world.is_first:
        printer.quiet, printer.as_json = True, False
    with world.connected(device), world.speaking():
        yield world, device
