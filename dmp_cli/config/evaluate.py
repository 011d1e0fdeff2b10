"""How folders of samples are scored against a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import Frozen, Options, Spoken, default_of, option
from .bounds import MAX_FILE_SIZE, MAX_PIXELS
from .memory import OFFLOAD_BLOCKS, Quantize
from .train import TrainConfig
from .typed import Crop, ReferencePart, Split

Metric = Literal["fid", "kid", "is", "prc"]


class EvalConfig(Frozen, metaclass=Spoken):
    """How folders of samples are scored against a reference."""

    samples: tuple[Path, ...] = option(
        "A folder of samples, a zip, or the .npz of dmp sample --npz. Give the option again for each further folder; "
        "the first is the base that the others are compared with.",
        default=...,
        shown=False,
        min_length=1,
    )
    reference: Path = option(
        "Real images (a folder or a zip), or their saved statistics (.npz).", default=..., shown=False
    )
    metrics: Annotated[tuple[Metric, ...], Split] = option(
        "Which scores, such as fid,kid: fid (Frechet distance), kid (kernel distance), is (Inception score), prc "
        "(precision and recall).",
        default=("fid",),
    )
    features: str = option(
        "The network whose features are compared: inception, clip, dinov2, pixels, digits, or a TorchScript file. "
        "Published FID numbers use inception.",
        default="inception",
    )
    inception_weights: Path | None = option(
        "The file inception-2015-12-05.pt.", shown="$DMP_INCEPTION, then the user's cache"
    )
    feature_weights: Path | None = option("The folder of transformers that holds the network of clip or dinov2.")
    crop: Crop = option(
        "Cut the reference's centres to this size, as training does: a square's side, or width x height; none takes "
        "images of other sizes as they are.",
        metavar="PIXELS|none",
        shown="refuse other sizes than the samples'",
    )
    reference_vae: str | None = option(
        "A VAE that the reference's images are encoded and decoded by first, so that its losses count for both sides."
    )
    reference_part: ReferencePart | None = option(
        "Score against the K-th of N parts of the reference's images only, where part K has image K and every N-th "
        "after it: what was chosen by one part can be scored against another.",
        metavar="K/N",
        shown="all images",
    )
    save_stats: Path | None = option("Keep the reference's statistics in this .npz, for later calls.")
    bootstrap: int | None = option(
        "Take each spread from this many resamples of the samples; 0 gives no spread.",
        shown="no resamples: how much each image moves the score",
        ge=0,
    )
    repeats: int = option(
        "Cut the samples into this many parts of consecutive images and score each, instead of resampling.",
        default=0,
        shown=False,
        ge=0,
    )
    kid_subsets: int = option("Subsets that the kernel distance is averaged over.", default=100, ge=1)
    kid_subset_size: int = option("Images of each of these subsets.", default=1000, ge=2)
    seed: int = Field(default=0, ge=0)
    max_pixels: int = option(
        "Pixels of the largest image that is read; larger ones count as unreadable.",
        default=MAX_PIXELS,
        shown=False,
        ge=1,
    )
    max_file_size: int = option(
        "MB of the largest file that is read, or member of a zip or tar; larger ones count as unreadable.",
        default=MAX_FILE_SIZE,
        shown=False,
        ge=1,
    )
    follow_links: bool = option(
        "Follow links that lead out of a folder of images, as those of DVC and git-annex do.",
        "--follow-links/--no-follow-links",
        default=False,
        shown=False,
    )
    batch_size: int = option("Images that go through the network at once.", default=32, ge=1)


class LossOptions(Options):
    """``dmp eval --loss``: the loss of patches on held-out images, in place of scores of samples."""

    panel: ClassVar[str | None] = "Held-out loss"

    loss: bool = option(
        "Measure the loss of patches and adapters on held-out images instead, beside the bare backbone's on the same "
        "draws.",
        "--loss",
        default=False,
    )
    patch: tuple[Path, ...] = option(
        "A patch to measure, a file or user/name on the hub. Give the option again for each further one.",
        default=(),
        shown=False,
    )
    adapter: tuple[Path, ...] = option(
        "What dmp train --method lora, dora, bitfit or difffit learnt, to measure likewise.", default=(), shown=False
    )
    val_data: Path | None = option("The held-out images, of the same classes as the backbone's.")
    val_draws: int = option(
        "Images, timesteps and noise of a measurement, as in dmp train.",
        default=default_of(TrainConfig, "val_draws"),
        ge=20,
        le=1_000_000,
    )
    force_backbone: bool = option(
        "Accept other weights than those a patch was trained on.", "--force-backbone", default=False
    )
    quantize: Quantize | None = option(
        "Measure on frozen weights in 8 bits (int8) or 4 (nf4), as in dmp train; the bare backbone's too."
    )
    offload_blocks: bool = OFFLOAD_BLOCKS
