"""``dmp improve``: how much it samples and trains, and what it chooses by."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from .base import Options, option, same_option
from .bounds import MAX_BATCH
from .commands import ArmSampling, ArmTraining
from .evaluate import EvalConfig
from .sample import MAX_IMAGES
from .typed import SCALES, Crop, Scales

NegativeMethod = Literal["lora", "dora", "bitfit", "difffit", "dmp", "prompt-tuning", "full"]


class ImproveOptions(Options):
    """``dmp improve``, beside the backbone, the negative, its sampling and its scoring."""

    reference: Path | None = option(
        "Real images. One half of them chooses the scale, the other half scores the result.",
        shown="the embedded ones, for digits",
    )
    output: Path = option("The folder of everything.", "--output", "-o", default=Path("improved"))
    num_images: int = option(
        "Images of every set that is scored.", "-n", "--num-images", default=2000, ge=4, le=MAX_IMAGES
    )
    scales: Scales = option(
        "The scales W to choose from; see dmp sample --against-scale.", default=SCALES, metavar="W,W,..."
    )
    choose_seed: int | None = option("Seed of the samples that choose the scale.", shown="--seed + 1", ge=0)
    score_seed: int | None = option("Seed of the samples that are scored in the end.", shown="--seed + 2", ge=0)
    follow_links: bool = option("Follow links that lead out of a folder of images.", "--follow-links", default=False)
    force: bool = option("Overwrite what is there.", "--force", default=False)


class NegativeOptions(Options):
    """The version of the backbone that is sampled against, which learns from the backbone's own samples."""

    panel: ClassVar[str | None] = "Negative"

    own_samples: int = option(
        "How many samples of the backbone the negative learns from. More are better, a few thousand at least.",
        default=5000,
        ge=2,
        le=MAX_IMAGES,
    )
    method: NegativeMethod = option(
        "What the negative is: lora or dora, an adapter; bitfit or difffit, tuned weights; dmp or prompt-tuning, a "
        "patch; full, all weights.",
        default="lora",
    )
    steps: int = option("Optimizer steps of its training.", default=2000, ge=1)
    lr: float = option("Its learning rate. Large models want less than the default.", default=1e-3, gt=0)
    lora_rank: int = option("Its rank, for lora and dora.", default=4, ge=1)
    batch_size: int = option("Images of one optimizer step.", default=128, ge=1, le=MAX_BATCH)
    micro_batch_size: int | None = same_option(
        ArmTraining, "micro_batch_size", help="Images on the device at once.", shown="the whole batch"
    )


class ImproveSampling(ArmSampling):
    """How all samples are drawn."""

    guidance: float | None = option(
        "Scale of classifier-free guidance of all samples. A distance punishes the variety that more of it loses.",
        shown="1; 7.5 for text",
        ge=0,
    )


class ImproveScoring(Options):
    """How samples are scored."""

    panel: ClassVar[str | None] = "Scoring"

    metrics: str | None = same_option(
        EvalConfig, "metrics", help="Which scores, as in dmp eval; the first one chooses the scale."
    )
    features: str | None = option("The feature network, as in dmp eval.", shown="inception; digits for digits")
    inception_weights: Path | None = option("The file inception-2015-12-05.pt, as in dmp eval.")
    feature_weights: Path | None = option("The folder of clip or dinov2, as in dmp eval.")
    crop: Crop = option(
        "What to cut the reference's images to, as in dmp eval.",
        metavar="PIXELS|none",
        shown="refuse other sizes than the samples'",
    )
