"""Records kept in files: what a file says about where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from .base import Frozen, Growing, refuse
from .by_hand import ByHandRecord
from .patch import PatchConfig, Position
from .shapes import ImageSize

ScheduleKind = Literal["linear", "scaled_linear", "cosine", "vp"]
Prediction = Literal["epsilon", "v_prediction", "velocity", "score", "sample"]  # sample: x_0 itself
# Whose direction of time: sit has noise at 0 and data at 1; repa and rectified (Stable Diffusion 3, Flux) the reverse.
Flow = Literal["sit", "repa", "rectified"]
NamedObjective = Literal["epsilon", "v_prediction", "sample", "sit", "repa"]  # that --objective takes
Objective = Literal[NamedObjective, "rectified"]  # and one that families of diffusers have by themselves
Trainer = Literal["meta", "diffusers"]
# All text encoders of such a pipeline.
TextKindName = Literal[
    "sdxl", "sd3", "flux", "auraflow", "lumina2", "sana", "hunyuandit", "zimage", "qwenimage", "cogview4"
]
TunedMethod = Literal["bitfit", "difffit"]  # training methods that learn some weights of the backbone itself
_Count = Annotated[int, Field(ge=1, lt=1 << 31, strict=True)]


class BackboneHints(Frozen):
    """What a weight file may leave open."""

    num_classes: int | None = Field(None, ge=0)
    num_heads: int | None = Field(None, ge=1)
    trained_with: Trainer | None = None
    schedule: ScheduleKind | None = None
    objective: Objective | None = None
    image_size: ImageSize | None = None  # pixels; for weights without a table of positions
    text: Path | None = None  # with the tokenizer, and the text encoder where the weights hold none
    sizes: dict[str, Any] | None = None  # from the file's own header; None: read from shapes


class SamplingRule(Growing):
    """How a pipeline's scheduler wants images drawn, in the words of diffusers; None: as the original samplers do."""

    variance_type: Literal["fixed_small", "fixed_small_log", "fixed_large", "learned_range"] | None = None  # of ddpm
    clip_sample: bool | None = None  # whether the guess of x_0 is clipped to [-clip_sample_range, clip_sample_range]
    clip_sample_range: float | None = Field(None, gt=0)
    thresholding: bool | None = None  # dynamic thresholding (Saharia et al. 2022) instead of clipping
    dynamic_thresholding_ratio: float | None = Field(None, ge=0, le=1)
    sample_max_value: float | None = Field(None, gt=0)
    timestep_spacing: Literal["leading", "trailing", "linspace"] | None = None
    steps_offset: int | None = Field(None, ge=0)  # added to every timestep of the spacing "leading"
    set_alpha_to_one: bool | None = None  # whether the last step of ddim goes to no noise, or to that of timestep 0


_OF_DDPM = (("linear", "scaled_linear", "cosine"), ("epsilon", "v_prediction", "sample"))
_OF_FLOW = (("linear", "cosine", "vp"), ("velocity", "epsilon", "score"))


class ScheduleConfig(Growing):
    """The noise schedule of the backbone's own pre-training."""

    later: ClassVar[frozenset[str] | None] = frozenset({"sampling", "flow", "zero_terminal_snr"})

    kind: ScheduleKind = "linear"  # of a flow: its interpolant, linear, cosine (GVP) or vp
    num_timesteps: int = Field(1000, ge=2)  # of a flow: levels at which gates are looked at
    beta_start: float = Field(1e-4, gt=0, lt=1)  # linear and scaled_linear
    beta_end: float = Field(0.02, gt=0, lt=1)  # linear and scaled_linear
    prediction: Prediction = "epsilon"  # what the backbone predicts: the noise, or v (Salimans and Ho 2022)
    sampling: SamplingRule | None = None  # None: no scheduler says how to sample, or the file is older than this field
    flow: Flow | None = None  # flow matching, over levels in [0, 1]; None: a DDPM, over whole timesteps
    zero_terminal_snr: Literal[True] | None = None  # whether the last timestep is pure noise (Lin et al. 2023)

    @model_validator(mode="after")
    def _is_one_of_both(self) -> ScheduleConfig:
        kinds, predictions = _OF_FLOW if self.flow else _OF_DDPM
        what = f"the flow of {self.flow}" if self.flow else "a DDPM"
        if self.kind not in kinds:
            raise refuse(f"--schedule {self.kind}: {what} has {', '.join(kinds[:-1])} or {kinds[-1]}")
        if self.prediction not in predictions:
            raise refuse(f"a prediction of {self.prediction}: {what} knows {', '.join(predictions)}")
        return self

    @model_validator(mode="after")
    def _can_end_in_noise(self) -> ScheduleConfig:
        if self.zero_terminal_snr and self.flow is not None:
            raise refuse(f"zero terminal SNR: the flow of {self.flow} ends in pure noise anyway")
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise refuse(
                "rescale_betas_zero_snr with a prediction of epsilon: the last timestep is pure noise, from which a "
                "prediction of the noise tells nothing about the image"
            )
        return self

    @property
    def objective(self) -> Objective:
        """What ``--objective`` calls it: the flow, or what a DDPM predicts."""
        if self.flow is not None:
            return self.flow
        assert self.prediction in ("epsilon", "v_prediction", "sample")
        return self.prediction


class CodecRecord(Growing):
    """What turns images into the space the backbone denoises."""

    later: ClassVar[frozenset[str] | None] = frozenset({"settings"})

    kind: Literal["pixel", "vae", "tiny-vae", "dc-vae", "video-vae"] = "pixel"
    source: str | None = None  # folder or hub id; None in pixel space
    digest: str | None = None  # SHA-256 of the codec's weights; None in pixel space
    settings: dict[str, Any] | None = None  # config fields other than its class's defaults; None also in older files

    def is_same(self, other: CodecRecord) -> bool:
        """Whether both compute the same. What an older record does not say is not compared."""
        known = self.settings is not None and other.settings is not None
        same = (self.kind, self.digest) == (other.kind, other.digest)
        return same and (not known or self.settings == other.settings)


class TextRecord(Growing):
    """What turns captions into what a text backbone reads."""

    later: ClassVar[frozenset[str] | None] = frozenset({"length"})

    kind: Literal["clip", "t5", TextKindName]
    source: str  # the pipeline's folder or hub id
    digest: str  # SHA-256 of the text encoder's weights
    length: int | None = None  # tokens of a caption where it is not the kind's own, as for PixArt-Sigma


class BackboneRecord(Growing):
    """Which backbone a patch belongs to."""

    later: ClassVar[frozenset[str] | None] = frozenset({"by_hand"})

    family: str
    sizes: dict[str, Any]  # the family's own config
    source: str  # the file or hub id it was read from
    name: str | None = None  # a registry name such as dit-b2, when it was loaded by one
    digest: str  # SHA-256 over its tensors: the same for the same weights in any container
    by_hand: ByHandRecord | None = None  # of a model that no family names


class TrainingRecord(BaseModel):
    """What is read again of the record of a training; the rest of it is for people."""

    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)

    method: str | None = None
    seed: int | None = None
    steps_done: Annotated[int, Field(ge=0, lt=1 << 53)] | None = None
    average: float | None = None
    data_rules: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    classes: list[str] | None = None


def _check_training(training: dict[str, Any]) -> dict[str, Any]:
    TrainingRecord.model_validate(training)
    return training


class ExpertLayer(Frozen):
    """A linear layer that low-rank experts update."""

    name: str  # inside its block, such as attn.qkv
    inputs: _Count
    outputs: _Count


class PatchRecord(Growing):
    """The header of a patch file, as written and read by ``patchfile``."""

    later: ClassVar[frozenset[str] | None] = frozenset({"expert_layers"})

    format_version: int = 1
    config: PatchConfig
    hidden_shapes: list[Annotated[list[_Count], Field(min_length=2, max_length=3)]]  # (N, D) of each prompted block
    expert_layers: list[list[ExpertLayer]] | None = None  # of each block in the patch; None: no low-rank experts
    gate_width: _Count  # D of the vector the gate reads
    backbone: BackboneRecord
    schedule: ScheduleConfig
    codec: CodecRecord
    image_size: ImageSize  # pixels
    text: TextRecord | None = None  # None: it reads none
    rounded: dict[str, str] = Field(
        default_factory=dict
    )  # SHA-256 of its weights in bf16 and fp16; empty in older files
    training: Annotated[dict[str, Any], AfterValidator(_check_training)] | None = None  # None: never trained


class TableRecord(Frozen):
    """The header of a baked table of mixtures, as written by ``table``."""

    format_version: int = 1
    timesteps: tuple[int | float, ...]  # of row s of every tensor: fractions of some samplers, levels of a flow
    blocks: tuple[str, ...]  # block i's module, by its public name
    position: Position
    strength: float
    dense: bool  # mixtures.i, or weights.i and prompts.i
    backbone: BackboneRecord
    patch: str  # SHA-256 of the patch file


class TunedRecord(Frozen):
    """The header of a file of tuned weights, as written and read by ``tuned_file``."""

    format_version: int = 1
    method: TunedMethod  # which fixes the names of its tensors
    backbone: BackboneRecord
    codec: CodecRecord
    image_size: ImageSize  # pixels
    training: Annotated[dict[str, Any], AfterValidator(_check_training)] | None = None  # None: never trained


class AdapterRecord(Frozen):
    """Whose adapter it is: ``dmp.json`` beside peft's files, as written and read by ``adapterfile``."""

    format_version: int = 1
    backbone: BackboneRecord
