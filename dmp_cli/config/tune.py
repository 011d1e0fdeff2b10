"""``dmp tune``: what is searched, by what it is judged, and on which seeds and images the winner is measured again."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from .base import Options, default_of, option, same_option
from .commands import ArmScoring, ArmTraining
from .evaluate import EvalConfig
from .sample import MAX_IMAGES
from .train import TrainConfig
from .typed import Seeds

Objective = Literal["loss", "fid", "kid", "is"]


class TuneOptions(Options):
    """``dmp tune``, beside the backbone and what all trials share."""

    ranges: Path | None = option(
        'A TOML file of options of dmp train: lr = {low = 1e-5, high = 1e-2, log = true}, gate = ["linear", '
        '"attention"]. A plain value holds for all trials.',
        shown="both learning rates and both balance losses",
    )
    trials: int = option(
        "How many sets of options are tried; the first one has the defaults.", default=20, ge=2, le=9999
    )
    by: Objective = option(
        "What is made better: loss, the loss on held-out images; or a score of samples, as in dmp eval: fid, kid, is.",
        default="loss",
    )
    output: Path = option("The folder of the whole search.", "--output", "-o", default=Path("tuned"))
    data: Path | None = option("The images to train on.", shown="the embedded ones, for digits")
    steps: int | None = option(
        "Optimizer steps of every trial.", shown=f"{default_of(TrainConfig, 'steps')}; 500 for digits", ge=1
    )
    prune: bool = option(
        "End a trial early whose held-out loss is worse than that of most trials at the same step.",
        "--prune/--no-prune",
        default=True,
    )
    round_size: int | None = option(
        "Propose trials in rounds of this many, from earlier rounds alone: then a search finds the same, however many "
        "trials run at once.",
        shown="each from all before it",
        ge=2,
        le=9999,
    )
    wait: bool = option("Stay until all is done, where other processes work on the rest.", "--wait", default=False)
    grey: bool = option(
        "Train a backbone for grey images on pictures that have colours, as grey ones.", "--grey", default=False
    )
    follow_links: bool = option("Follow links that lead out of a folder of images.", "--follow-links", default=False)
    force: bool = option("Overwrite what is there.", "--force", default=False)


class TuneImages(Options):
    """The images that choose, and those of the final, which no trial sees; none of both is trained on."""

    panel: ClassVar[str | None] = "Seeds and images"

    val_data: Path | None = option("Images that choose.", shown="a part of --data")
    val_split: float | None = option(
        "Hold out this share of each class of --data instead, such as 0.2.", shown="0.2", ge=0
    )
    final_data: Path | None = option(
        "Images of the final, which measures the winner again.", shown="every second image that is held out"
    )
    final_seeds: Seeds | None = option(
        "Seeds of the final: winner and defaults are trained from each of them. None may be --seed.",
        metavar="SEED,SEED,...",
        shown="--seed + 1, + 2 and + 3",
    )
    val_draws: int = option(
        "Images, timesteps and noise of a measurement, as in dmp train.",
        default=default_of(TrainConfig, "val_draws"),
        ge=30,  # whatever the seed of the draws, two in each band
        le=1_000_000,
    )
    num_images: int = option(
        "Images of every set of samples, for a score.", "-n", "--num-images", default=2000, ge=4, le=MAX_IMAGES
    )


class TuneTraining(Options):
    """How every trial is trained that does not say otherwise."""

    panel: ClassVar[str | None] = "Training"

    batch_size: int | None = same_option(TrainConfig, "batch_size", help="Images of one optimizer step.")
    micro_batch_size: int | None = same_option(
        ArmTraining, "micro_batch_size", help="Images on the device at once.", shown="the whole batch"
    )
    flip: bool | None = same_option(TrainConfig, "flip", "--flip/--no-flip", help="Mirror half of the images.")
    workers: int | None = same_option(TrainConfig, "workers", help="Processes that load images.")


class TuneScoring(Options):
    """How samples are scored, where the objective is a score."""

    panel: ClassVar[str | None] = "Scoring"

    reference: Path | None = option(
        "Real images. One half of them chooses, the other half scores the winner.", shown="--data"
    )
    features: str | None = same_option(
        ArmScoring, "features", help="The feature network, as in dmp eval.", shown="inception; digits for digits"
    )
    inception_weights: Path | None = option("The file inception-2015-12-05.pt, as in dmp eval.")
    feature_weights: Path | None = same_option(
        EvalConfig, "feature_weights", help="The folder of clip or dinov2, as in dmp eval."
    )
