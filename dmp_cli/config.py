"""Every option's default and range, and the records kept in files. Imports no torch, so that ``--help`` stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigError

Method = Literal["dmp", "prompt-tuning", "lora", "full", "scratch"]
Sampler = Literal["ddpm", "ddim", "dpm++"]
Dtype = Literal["fp32", "bf16", "fp16"]
GateKind = Literal["linear", "attention", "constant", "none"]
BalanceLosses = Literal["paper", "authors"]
Selection = Literal["soft", "hard"]
Scope = Literal["distinct", "uniform"]
GateInput = Literal["timestep", "conditioning"]
Position = Literal["add", "prepend"]
Init = Literal["zero", "random"]
ScheduleKind = Literal["linear", "scaled_linear", "cosine"]
Prediction = Literal["epsilon", "v_prediction"]
RateSchedule = Literal["constant", "cosine"]
Trainer = Literal["meta", "diffusers"]
GuidedChannels = Literal["3", "all"]


class Frozen(BaseModel):
    """Base of all configs and records: unknown fields are errors, fields never change after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


C = TypeVar("C", bound=Frozen)


def build(config: type[C], **options: Any) -> C:
    """Construct a config from options; a value out of range becomes one ConfigError that names its option."""
    try:
        return config(**options)
    except ValidationError as error:
        raise ConfigError("; ".join(_in_words(problem) for problem in error.errors())) from error


def _in_words(problem: Any) -> str:
    option = "--" + str(problem["loc"][0]).replace("_", "-") if problem["loc"] else ""
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{option} {problem['input']!r}: {reason}" if option else reason


# --- the patch ---------------------------------------------------------------------------------------------------


class PatchConfig(Frozen):
    """Which mixture of prompts a patch is (paper, Section 3 and Table 4)."""

    gate: GateKind = "linear"  # none = prompt tuning (Eq. 2), constant = 1/N (a control)
    scope: Scope = "distinct"  # the gate reads [t; i], or t alone (Table 4c)
    selection: Selection = "soft"  # hard: weight exactly 1 for the top k prompts, 0 for the others (Table 4b)
    top_k: int | None = Field(None, ge=1)  # prompts that hard selection keeps; None: 75 % of them, 192 of 256
    position: Position = "add"  # to the tokens, or as tokens of their own in front of them (Table 4d)
    num_prompts: int | None = Field(None, ge=1)  # of a block, when prepended; None: 50
    depth: int | None = Field(None, ge=0)  # the first blocks that get prompts (Table 4e); None: all of them
    gate_input: GateInput = "timestep"  # conditioning: timestep + class embedding, as in the authors' code
    gate_scale: float = Field(1.0, gt=0)  # factor on soft weights; N undoes the softmax's mean of 1/N (a control)
    init: Init = "zero"  # of the prompts; random is Xavier uniform on (N, D)

    @model_validator(mode="after")
    def _combination_makes_sense(self) -> PatchConfig:
        if self.gate in ("constant", "none"):
            for field, default in (("scope", "distinct"), ("selection", "soft"), ("gate_input", "timestep")):
                if getattr(self, field) != default:
                    option = f"--{field.replace('_', '-')} {getattr(self, field)}"
                    raise ValueError(
                        f"{option} is about a gate that reads something, and --gate {self.gate} reads nothing"
                    )
        if self.num_prompts is not None and self.position == "add":
            raise ValueError("--num-prompts is for --position prepend; added prompts are as many as the tokens")
        if self.top_k is not None and self.selection == "soft":
            raise ValueError("--top-k is for --selection hard; soft selection uses all prompts")
        if self.gate_scale != 1 and (self.selection == "hard" or self.gate == "none"):
            raise ValueError(
                "--gate-scale is a factor on soft weights or on a constant gate; here all weights are 1 or 0"
            )
        return self


class BackboneHints(Frozen):
    """What a weight file may leave open."""

    num_classes: int | None = Field(None, ge=0)
    num_heads: int | None = Field(None, ge=1)
    trained_with: Trainer | None = None
    schedule: ScheduleKind | None = None
    sizes: dict[str, Any] | None = None  # from the file's own header; None: read from shapes


# --- records: what files say about where they come from ------------------------------------------------------------


class ScheduleConfig(Frozen):
    """The noise schedule of the backbone's own pre-training."""

    kind: ScheduleKind = "linear"
    num_timesteps: int = Field(1000, ge=2)
    beta_start: float = Field(1e-4, gt=0, lt=1)  # linear and scaled_linear
    beta_end: float = Field(0.02, gt=0, lt=1)  # linear and scaled_linear
    prediction: Prediction = "epsilon"  # what the backbone predicts: the noise, or v (Salimans and Ho 2022)


class CodecRecord(Frozen):
    """What turns images into the space the backbone denoises."""

    kind: Literal["pixel", "vae", "tiny-vae"] = "pixel"
    source: str | None = None  # folder or hub id; None in pixel space
    digest: str | None = None  # SHA-256 of the codec's weights; None in pixel space


class TextRecord(Frozen):
    """What turns captions into what a text backbone reads."""

    kind: Literal["clip", "t5"]
    source: str  # the pipeline's folder or hub id
    digest: str  # SHA-256 of the text encoder's weights


class BackboneRecord(Frozen):
    """Which backbone a patch belongs to."""

    family: str
    sizes: dict[str, Any]  # the family's own config
    source: str  # the file or hub id it was read from
    name: str | None = None  # a registry name such as dit-b2, when it was loaded by one
    digest: str  # SHA-256 over its tensors: the same for the same weights in any container


class PatchRecord(Frozen):
    """The header of a patch file, as written and read by ``patchfile``."""

    format_version: int = 1
    config: PatchConfig
    hidden_shapes: list[list[int]]  # one (N, D) a prompted block
    gate_width: int  # D of the vector the gate reads
    backbone: BackboneRecord
    schedule: ScheduleConfig
    codec: CodecRecord
    image_size: int  # pixels
    text: TextRecord | None = None  # None: it reads none
    training: dict[str, Any] | None = None  # None: never trained


class TableRecord(Frozen):
    """The header of a baked table of mixtures, as written by ``table``."""

    format_version: int = 1
    timesteps: tuple[int, ...]  # of row s of every tensor
    blocks: tuple[str, ...]  # block i's module, by its public name
    position: Position
    strength: float
    dense: bool  # mixtures.i, or weights.i and prompts.i
    backbone: BackboneRecord
    patch: str  # SHA-256 of the patch file


class AdapterRecord(Frozen):
    """Whose adapter it is: ``dmp.json`` beside peft's files, as written and read by ``adapterfile``."""

    format_version: int = 1
    backbone: BackboneRecord


# --- commands --------------------------------------------------------------------------------------------------------


class TrainConfig(Frozen):
    """One training run. Defaults are the paper's recipe (Section 4; ``docs/method.md`` marks what it leaves open)."""

    method: Method = "dmp"
    data: Path
    steps: int = Field(30_000, ge=1)
    batch_size: int = Field(128, ge=1)  # global
    micro_batch_size: int | None = Field(None, ge=1)  # None: the whole batch at once
    lr: float = Field(1e-4, gt=0)  # prompts, adapter, or all weights for full and scratch
    gate_lr: float = Field(1e-3, gt=0)
    lora_rank: int = Field(16, ge=1)  # alpha is the rank too
    lora_targets: tuple[str, ...] | None = None  # linear layers of every block; None: its attention and MLP layers
    weight_decay: float = Field(0.0, ge=0)
    lr_schedule: RateSchedule = "constant"
    warmup: int = Field(0, ge=0)  # steps
    balance_importance: float = Field(1.0, ge=0)
    balance_load: float = Field(1.0, ge=0)
    balance_losses: BalanceLosses = "paper"  # authors: as their code computes them, for comparison
    gate_noise: bool = False  # the authors' noisy logits in the mixture while it trains
    ema: float = Field(0.0, ge=0, lt=1)  # decay; 0: none
    class_dropout: float = Field(0.1, ge=0, le=1)  # used only where the backbone has a null condition
    flip: bool = True
    seed: int = Field(0, ge=0)
    dtype: Dtype = "fp32"
    log_every: int = Field(100, ge=1)
    save_every: int = Field(5000, ge=1)
    sample_every: int = Field(5000, ge=0)  # 0: never
    keep: int = Field(3, ge=1)  # newest checkpoints kept
    workers: int = Field(0, ge=0)
    max_bad: int = Field(100, ge=0)  # unreadable images allowed before the run stops
    max_bad_steps: int = Field(20, ge=0)  # steps in a row that may be skipped for a loss that is not finite
    latent_store: bool | None = None  # None: for a VAE, and for pixels that do not fit in memory
    store_dir: Path | None = None  # the store's folder; None: one in $DMP_HOME/latents
    half_frozen: bool = True  # with bf16 and fp16, keep frozen weights in it: the same numbers
    gradient_checkpointing: bool = False  # compute each block again in the backward, instead of keeping it
    compile: bool = False  # by torch.compile
    shard_backbone: bool = False  # over the processes (FSDP2), for a backbone that does not fit one device

    @model_validator(mode="after")
    def _gate_options_have_a_gate(self) -> TrainConfig:
        if self.gate_noise and self.method != "dmp":
            raise ValueError(f"--gate-noise is noise on a gate's logits, and --method {self.method} has no gate")
        return self

    @model_validator(mode="after")
    def _only_frozen_weights_are_spread(self) -> TrainConfig:
        if self.shard_backbone and self.method not in ("dmp", "prompt-tuning"):
            raise ValueError(f"--shard-backbone is for a frozen backbone, and --method {self.method} changes it")
        return self

    @model_validator(mode="after")
    def _micro_batches_fit(self) -> TrainConfig:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"--micro-batch-size {self.micro_batch_size} does not divide --batch-size {self.batch_size}"
            )
        return self


class Prompt(Frozen):
    """One line of ``--prompts``."""

    text: str
    seed: int | None = Field(None, ge=0)  # None: that of all
    guidance: float | None = Field(None, ge=0)  # None: that of all


class PlanLine(Frozen):
    """One line of ``--plan``: one image."""

    seed: int | None = Field(None, ge=0)  # None: that of all
    place: int | None = Field(None, ge=0)  # what its noise is drawn for beside the seed; None: see ``plan``
    label: int | None = Field(None, ge=0)  # its class; "class" in the file
    prompt: str | None = None
    guidance: float | None = Field(None, ge=0)  # None: that of all


class SampleConfig(Frozen):
    """How images are drawn. Every field except ``num_images`` fixes the bytes of each image."""

    num_images: int = Field(16, ge=1)
    seed: int = Field(0, ge=0)
    sampler: Sampler = "ddpm"
    steps: int = Field(250, ge=1)
    guidance: float = Field(1.0, ge=0)  # 1: none
    guidance_channels: GuidedChannels = "all"  # DiT's own sampler guides 3 of the 4 latent channels
    classes: tuple[int, ...] | None = None  # cycled over the indices; None: the backbone has no classes
    prompts: tuple[Prompt, ...] | None = None  # cycled over the indices; None: the backbone reads no text
    plan: str | None = None  # SHA-256 of a plan's file, which then says seeds, classes, prompts; None: there is none
    balanced: bool = False  # whether every class must get exactly as many images
    guidance_interval: tuple[float, float] = (0.0, 1.0)  # share of the schedule, 1 pure noise, in which it is guided
    strength: float = 1.0
    batch_size: int = Field(16, ge=1)  # images in one fixed chunk of consecutive indices
    compile: bool = False  # by torch.compile
    dtype: Dtype = "fp32"

    @model_validator(mode="after")
    def _interval_is_one(self) -> SampleConfig:
        low, high = self.guidance_interval
        if not 0 <= low < high <= 1:
            raise ValueError(f"--guidance-interval {low:g},{high:g}: give two shares of the schedule, as 0.1,0.9")
        return self


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
