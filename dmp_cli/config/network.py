"""Which network a command works with: the backbone, its codec, and the patch on it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from .base import Options, option
from .records import NamedObjective, ScheduleKind, Trainer
from .shapes import ImageSize, as_number

_FORCE_BACKBONE = "Accept other weights than those the patch was trained on."


class BackboneOptions(Options):
    """Where the backbone's weights are."""

    panel: ClassVar[str | None] = "Backbone"

    backbone: str | None = option(
        "The backbone, which is the pretrained denoiser: a name (dit-s2 … dit-xl8, sd-v1.5, sdxl, digits), a weight "
        "file, a folder of diffusers, or a hub id.",
        metavar="NAME|PATH",
    )
    checkpoint: Path | None = option("Its weight file or folder, where a name alone does not find one.")
    text: Path | None = option(
        "A folder with its tokenizer, and with its text encoder where the weights hold none.",
        shown="what the backbone names",
    )
    download: bool = option(
        "Allow fetching public weights from the hub. Without it nothing is downloaded.", "--download", default=False
    )


class CodecOptions(Options):
    """Which codec goes with the backbone."""

    panel: ClassVar[str | None] = "Backbone"

    vae: str | None = option(
        "The codec, which turns images into the space the backbone denoises: a VAE's folder or hub id, or none for "
        "pixel space.",
        shown="what the backbone or patch names",
        metavar="PATH|none",
    )


class SizeOptions(Options):
    """What a weight file may leave open about its backbone."""

    panel: ClassVar[str | None] = "Backbone"

    image_size: ImageSize | None = option(
        "Size of the images in pixels: a side, such as 512, or width x height, such as 832x1216.",
        shown="the backbone's own",
        metavar="PIXELS",
        read=as_number,
    )
    num_classes: int | None = option("How many classes there are, where the weights leave it open.", ge=0)
    num_heads: int | None = option("How many attention heads there are, for a DiT of an unusual width.", ge=1)
    trained_with: Trainer | None = option(
        "Whose code trained a DiT that lies in a folder of diffusers: the two compute timesteps differently."
    )
    schedule: ScheduleKind | None = option(
        "Noise schedule the backbone was trained with, where no file says it; vp, linear and cosine (GVP) are those of "
        "a flow.",
        shown="linear",
    )
    objective: NamedObjective | None = option(
        "What the backbone predicts, where no file says it: the noise, v, the clean image itself (sample), or the "
        "velocity of a flow, with the time of SiT or of REPA.",
        shown="epsilon",
    )


class PatchedOptions(Options):
    """Which patch, for commands that use a trained one."""

    patch: Path | None = option("The patch file, or its name on the hub: user/name or user/name@revision.")
    force_backbone: bool = option(_FORCE_BACKBONE, "--force-backbone", default=False, panel="Backbone")


class SummedPatches(Options):
    """Which patches, for commands that may add up several."""

    patch: tuple[Path, ...] = option(
        "The patch file, or its name on the hub: user/name or user/name@revision. Give the option again to add up "
        "several patches, each with its strength, as in style.safetensors:0.5.",
        default=(),
        shown=False,
    )
    force_backbone: bool = option(_FORCE_BACKBONE, "--force-backbone", default=False, panel="Backbone")


class NetworkOptions(BackboneOptions, CodecOptions, SizeOptions):
    """All that says which bare network it is; what a command does not offer stays None."""

    @property
    def name(self) -> str | None:
        """The name, path or hub id that was given, by either option."""
        if self.backbone is not None:
            return self.backbone
        return None if self.checkpoint is None else str(self.checkpoint)

    @property
    def is_digits(self) -> bool:
        """Whether it is the embedded backbone, whose images are embedded too."""
        return self.backbone == "digits"
