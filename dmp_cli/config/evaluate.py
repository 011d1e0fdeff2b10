"""How folders of samples are scored against a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from .base import Frozen


class EvalConfig(Frozen):
    """How folders of samples are scored against a reference."""

    samples: tuple[Path, ...] = Field(min_length=1)
    reference: Path
    metrics: tuple[Literal["fid", "kid", "is", "prc"], ...] = ("fid",)
    features: str = "inception"  # inception, clip, dinov2, pixels, digits, or a TorchScript file
    inception_weights: Path | None = None  # None: $DMP_INCEPTION, then the user cache
    feature_weights: Path | None = None  # a folder of transformers, for clip and dinov2
    crop: int | Literal["none"] | None = None  # the reference's central squares; None: refuse other sizes than samples'
    reference_vae: str | None = None  # a VAE that the reference's images go through; None: as they are
    save_stats: Path | None = None  # .npz for the statistics of the reference, measured from images; None: not kept
    bootstrap: int = Field(10, ge=0)  # resamples behind each spread; 0: none
    repeats: int = Field(0, ge=0)  # parts of consecutive images, each scored by itself; 0: resample instead
    kid_subsets: int = Field(100, ge=1)
    kid_subset_size: int = Field(1000, ge=2)
    seed: int = Field(0, ge=0)
    batch_size: int = Field(32, ge=1)
