"""Records kept in files: what a file says about where it comes from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .base import Frozen
from .patch import PatchConfig, Position

ScheduleKind = Literal["linear", "scaled_linear", "cosine"]
Prediction = Literal["epsilon", "v_prediction"]
Trainer = Literal["meta", "diffusers"]


class BackboneHints(Frozen):
    """What a weight file may leave open."""

    num_classes: int | None = Field(None, ge=0)
    num_heads: int | None = Field(None, ge=1)
    trained_with: Trainer | None = None
    schedule: ScheduleKind | None = None
    sizes: dict[str, Any] | None = None  # from the file's own header; None: read from shapes


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
    rounded: dict[str, str] = Field(
        default_factory=dict
    )  # SHA-256 of its weights in bf16 and fp16; empty in older files
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
