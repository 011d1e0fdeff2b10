"""Options that belong to one command alone, and those that every command takes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from .base import Dtype, Options, option, same_option
from .bounds import MAX_FILE_SIZE, MAX_PIXELS
from .evaluate import EvalConfig
from .sample import MAX_IMAGES, GuidedChannels, SampleConfig, Sampler
from .track import TrackOptions
from .train import TrainConfig
from .typed import SCALES, Grid, Scales, Shard

_FORCE = "Overwrite what is there."
_GREY = "Train a backbone for grey images on pictures that have colours, as grey ones."


class CommonOptions(Options):
    """What every command takes, beside --config."""

    panel: ClassVar[str | None] = "Everywhere"

    device: str | None = option("Where to compute: auto, cpu, cuda, cuda:N or mps.", shown="auto")
    dtype: Dtype | None = option(
        "Precision of matrix products. bf16 and fp16 are faster on a GPU; weights that learn stay in fp32.",
        shown="fp32",
    )
    seed: int | None = option("Number that fixes all randomness.", shown="0", ge=0)
    dry_run: bool = option("Print the resolved plan and do nothing.", "--dry-run", default=False)
    json_: bool = option(
        "Print the result as one JSON object on stdout, and all else on stderr.", "--json", default=False
    )
    verbose: bool = option("Show tracebacks and details.", "--verbose", "-v", default=False)
    quiet: bool = option("Print errors only.", "--quiet", "-q", default=False)


class PatchOptions(Options):
    """``dmp patch``."""

    output: Path | None = option("The file to write.", "--output", "-o")
    info: Path | None = option("Say in words what a patch file is, and do nothing else.")
    from_: Path | None = option("Make a patch of a training checkpoint of the paper's authors.", "--from")
    export: Path | None = option(
        "Bake this patch: write a table of what it adds at each timestep of a sampler, for code that has no gate."
    )
    sampler: Sampler | None = same_option(SampleConfig, "sampler", help="The sampler whose timesteps --export bakes.")
    steps: int | None = same_option(SampleConfig, "steps", help="Denoising steps of that sampler.")
    dense: bool = option(
        "Write the products of weights and prompts into the table, instead of both: larger, and simpler to use.",
        "--dense",
        default=False,
    )
    force: bool = option(_FORCE, "--force", default=False)


class TrainOptions(TrackOptions):
    """``dmp train``."""

    output: Path | None = option("The run's folder.", "--output", "-o", shown="runs/DATA-METHOD")
    preset: str | None = option(
        "All options of one experiment of the paper: paper-ffhq-b2, paper-ffhq-l2, paper-coco-b2 or paper-sd15. "
        "Options given beside it win.",
        metavar="NAME",
    )
    resume: bool = option(
        "Continue the run in -o where it stopped; all other options may be left out.", "--resume", default=False
    )
    force: bool = option(_FORCE, "--force", default=False)
    grey: bool = option(_GREY, "--grey", default=False)
    measure: bool = option("With --dry-run: time five steps, and remove their folder.", "--measure", default=False)


class TextStoreOptions(Options):
    """Whether encoded captions are kept on disk, of ``dmp train`` and ``dmp sample``."""

    panel: ClassVar[str | None] = "Speed and memory"

    text_store: bool | None = option(
        "Encode every caption once, keep what the text encoders give for all runs, and let the encoders leave memory.",
        "--text-store/--no-text-store",
        shown="in training, with a T5 or several encoders",
    )
    text_store_dir: Path | None = option("Folder of the text store.", shown="in $DMP_HOME/texts")
    text_dtype: Dtype | None = option(
        "Precision of what a text store keeps: bf16 and fp16 take half the space of fp32, which changes no bit.",
        shown="bf16",
    )

    @property
    def asked(self) -> bool | None:
        """Whether a store is wanted; None: nothing was said of it."""
        if self.text_store is None and (self.text_store_dir is not None or self.text_dtype is not None):
            return True
        return self.text_store


class SampleOptions(Options):
    """``dmp sample``."""

    output: Path | None = option("The folder of the images.", "--output", "-o", shown="samples/NAME")
    adapter: Path | None = option(
        "What dmp train --method lora, dora, bitfit or difffit learnt, such as RUN/adapter, to use with --backbone."
    )
    no_patch: bool = option(
        "Draw from the bare backbone of the patch, from the same noise, to compare.", "--no-patch", default=False
    )
    against: str | None = option(
        "Guide away from another version of the network, such as a patch that has learnt from its own samples: base "
        "(the bare backbone), a patch file, what --adapter takes, or a backbone file of the same family.",
        metavar="VERSION",
    )
    prompt: str | None = option("What to draw, for a backbone that reads text.")
    prompts: Path | None = option(
        "A file of prompts, one a line; --d SEED, --l GUIDANCE and --n NEGATIVE PROMPT may end a line."
    )
    plan: Path | None = option(
        "A file of JSON lines, one an image: its class or prompt, seed and guidance.", metavar="FILE"
    )
    shard: Shard = option("Draw only the K-th of N parts, for job arrays.", default=(0, 1), shown=False, metavar="K/N")
    npz: bool = option("Write samples.npz too, as ADM's evaluation reads it.", "--npz", default=False)
    tar: bool = option(
        "Keep the images in tar files of 1,000, as a webdataset, instead of a file each.", "--tar", default=False
    )
    keep_latents: bool = option(
        "Keep beside each image the latent it was decoded from, as NNNNNN.latent.npy, so that dmp train --data encodes "
        "nothing.",
        "--keep-latents",
        default=False,
    )
    verify: bool = option("Draw nothing; check every image by its SHA-256.", "--verify", default=False)
    grid: Grid = option("Rows and columns of grid.png.", default=(4, 4), shown="4x4", metavar="ROWSxCOLS")
    force: bool = option(_FORCE, "--force", default=False)


class EvalOptions(Options):
    """``dmp eval``."""

    output: Path = option("The report's folder.", "--output", "-o", default=Path("scores"))
    gates: Path | None = option("A folder of dmp inspect-gates, whose pictures the page shows.")
    jobs: int = option("Processes at once on this machine, which share the features.", default=1, ge=1, le=1024)
    force: bool = option(_FORCE, "--force", default=False)


class InspectOptions(Options):
    """``dmp inspect-gates``."""

    output: Path | None = option("The folder of numbers and pictures.", "--output", "-o", shown="gates/NAME")
    compare: Path | None = option("Another patch of the same backbone: measure how far the two gates are apart.")
    data: Path | None = option("Real images: measure how large what the patch adds is beside the hidden state.")
    num_images: int = option("How many of these images are used.", "--num-images", "-n", default=16, ge=1)
    max_pixels: int = option(
        "Pixels of the largest of these images that is read.", default=MAX_PIXELS, shown=False, ge=1
    )
    max_file_size: int = option(
        "MB of the largest of these files that is read.", default=MAX_FILE_SIZE, shown=False, ge=1
    )
    follow_links: bool = option(
        "Follow links that lead out of the folder of these images.", "--follow-links", default=False, shown=False
    )
    force: bool = option(_FORCE, "--force", default=False)


class ConvertOptions(Options):
    """``dmp convert``."""

    output: Path | None = option(
        "Where to write: a name that ends in .pt for Meta's names, any other for a folder of diffusers.",
        "--output",
        "-o",
    )
    force: bool = option(_FORCE, "--force", default=False)


class DemoOptions(Options):
    """``dmp demo``."""

    output: Path = option("The folder of the whole demo.", "--output", "-o", default=Path("dmp-demo"))
    steps: int = option("Steps of each further training.", default=2000, ge=1)
    num_images: int = option(  # as many as there are real digits
        "Images of each set of samples.", "-n", "--num-images", default=1797, ge=60, le=MAX_IMAGES
    )
    force: bool = option(_FORCE, "--force", default=False)


class AblateOptions(Options):
    """``dmp ablate``, beside its argument: what all arms share."""

    data: Path | None = option("The images to train on.", shown="the embedded ones, for digits")
    output: Path | None = option("The folder of the whole ablation.", "--output", "-o", shown="ablations/TABLE")
    steps: int | None = same_option(TrainConfig, "steps", help="Optimizer steps of every arm.")
    seeds: int = option("How often every arm is trained, each time from another seed.", default=1, ge=1)
    num_images: int = option(
        "Images of every set of samples.", "-n", "--num-images", default=10_000, ge=2, le=MAX_IMAGES
    )
    scales: Scales = option(
        "The scales W to choose from, for arms that are sampled against; see dmp improve.",
        default=SCALES,
        metavar="W,W,...",
    )
    points: int | None = option("How often an arm is scored along its training.", shown="1; 5 for table3", ge=1)
    grey: bool = option(_GREY, "--grey", default=False)
    follow_links: bool = option("Follow links that lead out of a folder of images.", "--follow-links", default=False)
    force: bool = option(_FORCE, "--force", default=False)


class ArmTraining(Options):
    """How ``dmp ablate`` trains every arm that does not say otherwise."""

    panel: ClassVar[str | None] = "Training"

    batch_size: int | None = same_option(TrainConfig, "batch_size", help="Images of one optimizer step.")
    micro_batch_size: int | None = same_option(
        TrainConfig, "micro_batch_size", help="Images on the device at once.", shown="the whole batch"
    )
    flip: bool | None = same_option(TrainConfig, "flip", "--flip/--no-flip", help="Mirror half of the images.")
    workers: int | None = same_option(TrainConfig, "workers", help="Processes that load images.")
    class_dropout: float | None = same_option(
        TrainConfig, "class_dropout", help="Share of classes or captions replaced by the null condition."
    )
    save_every: int | None = same_option(
        TrainConfig, "save_every", help="Steps between two checkpoints.", shown="at each score"
    )


class ArmSampling(Options):
    """How ``dmp ablate`` samples the base and every arm."""

    panel: ClassVar[str | None] = "Sampling"

    sampler: Sampler | None = same_option(SampleConfig, "sampler", help="The algorithm that removes the noise.")
    sampling_steps: int | None = same_option(
        SampleConfig, "steps", "--sampling-steps", help="Denoising steps of each image."
    )
    guidance: float | None = option("Scale of classifier-free guidance, as in dmp sample.")
    prompts: Path | None = option("A file of prompts, as in dmp sample.")
    guidance_channels: GuidedChannels | None = option("Latent channels that are guided, as in dmp sample.")
    sample_batch_size: int | None = option("Images of one chunk, as --batch-size in dmp sample.")


class ArmScoring(Options):
    """How ``dmp ablate`` scores all sets."""

    panel: ClassVar[str | None] = "Scoring"

    reference: Path | None = option("Real images or statistics, as in dmp eval.", shown="--data")
    metrics: str | None = same_option(EvalConfig, "metrics", help="Which scores, as in dmp eval.")
    features: str | None = option("The feature network, as in dmp eval.", shown="inception; digits for digits")
    inception_weights: Path | None = option("The file inception-2015-12-05.pt, as in dmp eval.")
