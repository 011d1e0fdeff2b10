"""Options about memory: counting it before a run, and keeping frozen weights in fewer bits."""

from __future__ import annotations

from typing import ClassVar, Literal

from .base import Options, option
from .typed import Batches

Quantize = Literal["int8", "nf4"]

QUANTIZE = option(
    "Keep the frozen weights of the blocks' linear layers in 8 bits (int8, by torchao) or 4 (nf4, by bitsandbytes, on "
    "CUDA): less memory, and a network that is a little another. The patch fits the float weights too.",
    panel="Speed and memory",
)


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
