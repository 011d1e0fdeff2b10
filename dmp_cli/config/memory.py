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
OFFLOAD_BLOCKS = option(
    "Keep the frozen weights of the blocks in main memory, and move each layer's to the GPU where it is used: the same "
    "numbers in far less of the GPU's memory, and far slower.",
    "--offload-blocks",
    default=False,
    shown=False,
    panel="Speed and memory",
)


class SamplingMemory(Options):
    """How ``dmp sample`` saves memory, beside what fixes the images."""

    panel: ClassVar[str | None] = "Speed and memory"

    vae_tiling: bool = option(
        "Let the VAE decode large images in overlapping tiles: less memory, and images that are a little other.",
        "--vae-tiling",
        default=False,
    )
    offload_blocks: bool = OFFLOAD_BLOCKS


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
