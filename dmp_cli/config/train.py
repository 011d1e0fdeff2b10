"""One training run: every option, its default, its range and its help."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from . import balance, buckets as shapes, levels as noise, memory
from .base import Dtype, Spoken, option
from .bounds import MAX_BATCH, MAX_FILE_SIZE, MAX_PIXELS
from .data_place import DataPlace
from .train_rules import find_problems
from .typed import Rates, ValPart, Words

Method = Literal["dmp", "prompt-tuning", "lora", "dora", "bitfit", "difffit", "full", "scratch"]
RateSchedule = Literal["constant", "cosine"]

# Headings of --help, beside that of the recipe.
_LORA, _RECORD, _SPEED = "LoRA", "Reading and saving", "Speed and memory"
_HELD = "Held-out loss"


class TrainConfig(DataPlace, metaclass=Spoken):
    """One training run. Defaults are the paper's recipe (Section 4; ``docs/method.md`` marks what it leaves open)."""

    panel: ClassVar[str | None] = "Recipe"

    method: Method = option(
        "What is trained: dmp, a patch; prompt-tuning, prompts without a gate; lora or dora, low-rank adapters; "
        "bitfit, biases; difffit, biases, norms, the class table and scales of each block; full, all weights; scratch, "
        "all weights from a fresh start. All but the first are baselines to compare with.",
        default="dmp",
        panel="",
    )
    data: Path = option(
        "The images to train on, best those the backbone was trained on: a folder (flat, or one sub-folder per class), "
        "a zip of one, webdataset tar shards here or behind an address, a table as hf:user/name:split or hf:folder, or "
        "a folder that dmp sample has filled.",
        default=Path(),  # Python names them beside the config
        shown=False,
        panel="",
    )
    class_names: Path | None = option(
        "A file that names the class folders, one a line, in the order of the class indices; for shards, the classes.",
        shown="classes.txt in the data; else numbers in their order, or names in theirs",
    )
    steps: int = option("Optimizer steps. The paper takes 30,000 to 50,000.", default=30_000, ge=1)
    batch_size: int = option("Images of one optimizer step, over all processes.", default=128, ge=1, le=MAX_BATCH)
    micro_batch_size: int | None = option(
        "Images that are on the device at once; their gradients are added up to those of the batch. Lower it when "
        "memory runs out.",
        shown="the whole batch",
        ge=1,
    )
    lr: float = option("Learning rate of the prompts; for other methods of all that is learnt.", default=1e-4, gt=0)
    gate_lr: float = option("Learning rate of the gate.", default=1e-3, gt=0, panel=balance.PANEL)
    lora_rank: int = option(
        "Rank of the low-rank matrices of --method lora and dora, which is also their alpha. A higher rank means more "
        "parameters.",
        default=16,
        ge=1,
        panel=_LORA,
    )
    lora_targets: Words | None = option(
        "Linear layers of every block that --method lora or dora adapts, by name, such as qkv,proj.",
        shown="attention and MLP layers",
        panel=_LORA,
    )
    weight_decay: float = option("Weight decay of AdamW.", default=0.0, ge=0)
    lr_schedule: RateSchedule = option(
        "How the learning rates change over the steps: constant, or cosine down to 0.", default="constant"
    )
    warmup: int = option("Steps over which the learning rates rise from 0.", default=0, ge=0)
    balance_importance: float = balance.IMPORTANCE
    balance_load: float = balance.LOAD
    balance_losses: balance.Losses = balance.LOSSES
    gate_noise: bool = balance.GATE_NOISE
    levels: noise.Levels | None = noise.LEVELS
    level_mean: float | None = noise.LEVEL_MEAN
    level_std: float | None = noise.LEVEL_STD
    mode_scale: float | None = noise.MODE_SCALE
    level_shift: float | None = noise.LEVEL_SHIFT
    loss_weight: noise.LossWeight = noise.LOSS_WEIGHT
    snr_gamma: float | None = noise.SNR_GAMMA
    ema: float = option(
        "Decay of an exponential moving average of what is trained, such as 0.999; it is written beside the trained "
        "file. 0 keeps no average.",
        default=0.0,
        ge=0,
        lt=1,
    )
    class_dropout: float = option(  # used only where the backbone has a null condition
        "Share of classes or captions that are replaced by the null condition, for guidance.", default=0.1, ge=0, le=1
    )
    encoder_dropout: Rates | None = option(
        "Share of captions that single text encoders of several are not told, as Stable Diffusion 3 was trained: their "
        "states are zeros there.",
        shown="every encoder is told all",
        metavar="text_encoder=0.5,...",
    )
    flip: bool = option(
        "Mirror half of the images. Switch it off where left and right differ, as for text or digits.",
        "--flip/--no-flip",
        default=True,
    )
    buckets: bool = shapes.BUCKETS
    bucket_step: int | None = shapes.STEP
    bucket_min: int | None = shapes.LEAST
    bucket_max: int | None = shapes.MOST
    upscale: bool = shapes.UPSCALE
    random_crop: bool = shapes.RANDOM_CROP
    seed: int = Field(default=0, ge=0)
    dtype: Dtype = "fp32"
    log_every: int = option("Steps between two lines of log.jsonl.", default=100, ge=1, panel=_RECORD)
    save_every: int = option(
        "Steps between two checkpoints, which are what --resume goes on from.", default=5000, ge=1, panel=_RECORD
    )
    sample_every: int = option(
        "Steps between two grids of samples, each of base and learnt side by side. 0 draws none.",
        default=5000,
        ge=0,
        panel=_RECORD,
    )
    keep: int = option("How many checkpoints are kept, the newest ones.", default=3, ge=1, panel=_RECORD)
    workers: int = option(
        "Processes that load images. Raise it when the log's data_wait is not near 0.",
        default=0,
        ge=0,
        le=256,
        panel=_RECORD,
    )
    max_bad: int = option("Unreadable images that are skipped before the run stops.", default=100, ge=0, panel=_RECORD)
    max_pixels: int = option(
        "Pixels of the largest image that is read; larger ones count as unreadable.",
        default=MAX_PIXELS,
        ge=1,
        panel=_RECORD,
    )
    max_file_size: int = option(
        "MB of the largest file that is read, or member of a zip or tar; larger ones count as unreadable.",
        default=MAX_FILE_SIZE,
        ge=1,
        panel=_RECORD,
    )
    follow_links: bool = option(
        "Follow links that lead out of the data set's folder, as those of DVC and git-annex do.",
        "--follow-links/--no-follow-links",
        default=False,
        panel=_RECORD,
    )
    max_bad_steps: int = option(
        "Steps in a row that may be skipped because their loss is not finite, before the run stops.",
        default=20,
        ge=0,
        panel=_RECORD,
    )
    val_data: Path | None = option(
        "Images that are never trained on: their loss is measured as the run goes on, beside the bare network's on the "
        "same draws.",
        panel=_HELD,
    )
    val_split: float = option(
        "Hold out this share of each class of --data instead, such as 0.02.",
        default=0.0,
        shown=False,
        ge=0,
        lt=1,
        panel=_HELD,
    )
    val_part: ValPart | None = option(
        "Measure on the K-th of N parts of these images only: on one part one can choose, on another one score.",
        metavar="K/N",
        shown="all of them",
        panel=_HELD,
    )
    val_seed: int = option("Number that fixes the draws of all measurements.", default=0, ge=0, panel=_HELD)
    val_every: int = option("Steps between two measurements.", default=1000, ge=1, panel=_HELD)
    val_draws: int = option(
        "Images, timesteps and noise of a measurement, always the same; timesteps are spread over the whole range.",
        default=1024,
        ge=1,
        le=1_000_000,
        panel=_HELD,
    )
    val_losses: bool = option(
        "Keep the loss of each draw, in held-out.csv.", "--val-losses/--no-val-losses", default=False, panel=_HELD
    )
    keep_best: bool = option(
        "Keep what was learnt at the lowest held-out loss too, as patch-best.safetensors.",
        "--keep-best/--no-keep-best",
        default=False,
        panel=_HELD,
    )
    patience: int | None = option(
        "End the run when so many measurements in a row did not lower the held-out loss.", ge=1, panel=_HELD
    )
    latent_store: bool | None = option(
        "Encode all images once and keep the latents for all runs, or encode them anew at every step.",
        "--latent-store/--no-latent-store",
        shown="where it saves work",
        panel=_SPEED,
    )
    store_dir: Path | None = option("Folder of the latent store.", shown="in $DMP_HOME/latents", panel=_SPEED)
    auto_micro_batch: bool = option(
        "Where memory runs out, compute the step again in micro-batches of half the size, and go on with these.",
        "--auto-micro-batch/--no-auto-micro-batch",
        default=False,
        panel=_SPEED,
    )
    half_frozen: bool = option(
        "With --dtype bf16 or fp16, keep the frozen weights in that precision: half the memory, the same numbers.",
        "--half-frozen/--no-half-frozen",
        default=True,
        panel=_SPEED,
    )
    quantize: memory.Quantize | None = memory.QUANTIZE
    offload_blocks: bool = memory.OFFLOAD_BLOCKS
    gradient_checkpointing: bool = option(
        "Compute each block again in the backward pass instead of keeping its values: less memory, more time.",
        "--gradient-checkpointing/--no-gradient-checkpointing",
        default=False,
        panel=_SPEED,
    )
    compile: bool = option(
        "Compile the denoiser with torch.compile: a slow first step, then faster ones.",
        "--compile/--no-compile",
        default=False,
        panel=_SPEED,
    )
    shard_backbone: bool = option(
        "Spread the frozen weights over the processes (FSDP2), for a backbone that does not fit on one device.",
        "--shard-backbone/--no-shard-backbone",
        default=False,
        panel=_SPEED,
    )

    @property
    def holds_out(self) -> bool:
        """Whether the loss on held-out images is measured."""
        return self.val_data is not None or self.val_split > 0

    @model_validator(mode="after")
    def _options_fit_together(self) -> TrainConfig:
        for problem in find_problems(self):
            raise ValueError(problem)
        return self
