"""The options of training on images of several shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import option

if TYPE_CHECKING:
    from .train import TrainConfig

# By the names that TrainConfig has them under.
BUCKET_OPTIONS = ("buckets", "bucket_step", "bucket_min", "bucket_max", "upscale", "random_crop")
PANEL = "Images of several shapes"

BUCKETS = option(
    "Show each image at the size nearest to its own shape, instead of cutting the same shape out of all. These sizes "
    "have the area of --image-size; a batch holds images of one size.",
    "--buckets/--no-buckets",
    default=False,
    panel=PANEL,
)
STEP = option(
    "Sides of these sizes are multiples of so many pixels.", shown="64, or as the backbone needs", ge=1, panel=PANEL
)
LEAST = option("Shortest side of these sizes in pixels.", shown="half of --image-size", ge=1, panel=PANEL)
MOST = option("Longest side of these sizes in pixels.", shown="twice --image-size", ge=1, panel=PANEL)
UPSCALE = option(
    "Enlarge images that are smaller than their size; without it they get a smaller one.",
    "--upscale/--no-upscale",
    default=True,
    panel=PANEL,
)
RANDOM_CROP = option(
    "Cut another part out of each image at random every time that it is shown, instead of its centre. Images are then "
    "encoded at every step, without a latent store.",
    "--random-crop/--no-random-crop",
    default=False,
    panel=PANEL,
)


def bucket_option(config: TrainConfig) -> str | None:
    """An option of buckets that is given without them, as it is typed; None: there is none."""
    if config.buckets:
        return None
    named = {"bucket_step": "--bucket-step", "bucket_min": "--bucket-min", "bucket_max": "--bucket-max"}
    given = [flag for name, flag in named.items() if getattr(config, name) is not None]
    given += [] if config.upscale else ["--no-upscale"]
    return next(iter([*given, *(["--random-crop"] if config.random_crop else [])]), None)
