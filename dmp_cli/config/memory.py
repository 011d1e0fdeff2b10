"""Options about memory: counting it before a run, and keeping frozen weights in fewer bits."""

from __future__ import annotations

from typing import ClassVar

from .base import Options, option
from .typed import Batches


class MemoryOptions(Options):
    """``dmp patch --memory``."""

    panel: ClassVar[str | None] = "Speed and memory"

    memory: bool = option(
        "Print how much memory training and sampling need, counted from the shapes alone: of a name or a folder of "
        "diffusers no weights are read.",
        "--memory",
        default=False,
    )
    batches: Batches = option(
        "Numbers of images at once that --memory counts for.", default=(1, 4, 16), shown="1,4,16", metavar="N,N,..."
    )
