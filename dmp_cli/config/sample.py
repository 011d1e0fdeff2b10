"""How images are drawn, and the lines of the files that say what to draw."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .base import Dtype, Frozen

Sampler = Literal["ddpm", "ddim", "dpm++"]
GuidedChannels = Literal["3", "all"]


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
