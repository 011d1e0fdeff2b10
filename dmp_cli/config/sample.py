"""How images are drawn, and the lines of the files that say what to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from .base import Dtype, Growing, Spoken, default_of, option
from .memory import Quantize
from .pipeline_sampler import PipelineSampler
from .records import Flow
from .typed import Classes, Interval

_Ddpm = Literal["ddpm", "ddim", "dpm++", "euler", "euler-a", "heun", "unipc", "pipeline"]
_Flow = Literal["sde-euler", "ode-euler", "ode-heun", "flow-euler", "flow-heun"]
Sampler = Literal[_Ddpm, _Flow]
# Of each flow, the default first where no pipeline names one. The others remove the noise of a DDPM.
FLOW_SAMPLERS: dict[Flow, tuple[str, ...]] = {
    "sit": ("sde-euler", "ode-euler", "ode-heun"),
    "repa": ("sde-euler", "ode-euler", "ode-heun"),
    "rectified": ("flow-euler", "flow-heun", "pipeline"),
}
RECTIFIED_STEPS = 28  # of a call of StableDiffusion3Pipeline and of FluxPipeline, by default


def usual_sampler(flow: Flow | None) -> str | None:
    """The sampler of a flow where none is named and no pipeline has one; None for a DDPM, which has the option's."""
    return None if flow is None else FLOW_SAMPLERS[flow][0]


GuidedChannels = Literal["3", "all"]

MAX_IMAGES = 10_000_000  # of one set of samples
DEFAULT_CHUNK = 16  # images drawn together where nothing else is said


class Prompt(Growing):
    """One line of ``--prompts``."""

    later = frozenset({"negative"})

    text: str
    seed: int | None = Field(default=None, ge=0)  # None: that of all
    guidance: float | None = Field(default=None, ge=0)  # None: that of all
    negative: str | None = None  # what guidance leads away from; None: from the empty caption


class PlanLine(Growing):
    """One line of ``--plan``: one image."""

    later = frozenset({"negative"})

    seed: int | None = Field(default=None, ge=0)  # None: that of all
    place: int | None = Field(default=None, ge=0)  # what its noise is drawn for beside the seed; None: see ``plan``
    label: int | None = Field(default=None, ge=0)  # its class; "class" in the file
    prompt: str | None = None
    guidance: float | None = Field(default=None, ge=0)  # None: that of all
    negative: str | None = None  # what guidance leads away from; None: from the empty caption


class SampleConfig(Growing, metaclass=Spoken):
    """How images are drawn. Every field except ``num_images`` fixes the bytes of each image."""

    later = frozenset({"against_scale", "against_interval", "scheduler", "quantize", "prompt_file"})

    num_images: int = option(
        "How many images. A larger number than before adds images to those that are there.",
        "-n",
        "--num-images",
        default=16,
        ge=1,
        le=MAX_IMAGES,
    )
    seed: int = Field(default=0, ge=0)
    sampler: Sampler = option(
        "The algorithm that removes the noise. All but ddpm and euler-a need fewer steps, such as 50. pipeline is the "
        "scheduler of the pipeline that the weights come from, with its own settings. sde-euler, ode-euler and "
        "ode-heun are those of SiT and REPA, flow-euler and flow-heun those of Stable Diffusion 3 and Flux.",
        default="ddpm",
        shown="pipeline where the weights come from one, sde-euler or flow-euler for a flow, else ddpm",
    )
    scheduler: PipelineSampler | None = None  # of --sampler pipeline, as the pipeline's folder states it
    steps: int = option(
        "Denoising steps. Fewer are faster; DiT's own sampler takes 250.",
        default=250,
        shown=f"{RECTIFIED_STEPS} for Stable Diffusion 3 and Flux, else 250",
        ge=1,
    )
    guidance: float = option(
        "Scale of classifier-free guidance: higher follows the class or text more closely. 1 switches it off.",
        default=1.0,
        shown="1.5 for classes, 7.5 for text",
        ge=0,
    )
    guidance_channels: GuidedChannels = option(  # DiT's own sampler guides 3 of the 4 latent channels
        "Latent channels that are guided; 3 of 4 is what DiT's own sampler does.",
        default="all",
        shown="3 for a DiT or SiT of 4 channels, else all",
    )
    classes: Classes = option(  # None: the backbone has no classes
        "Class indices that the images take in turn, such as 207,360, or all.", shown="all"
    )
    prompts: tuple[Prompt, ...] | None = None  # cycled over the indices; None: the backbone reads no text
    prompt_file: str | None = None  # SHA-256 of the prompts where there are more than a record holds; None: no more
    plan: str | None = None  # SHA-256 of a plan's file, which then says seeds, classes, prompts; None: there is none
    balanced: bool = option(
        "Refuse a number of images that does not give every class equally many, as scores of classes need.",
        "--balanced",
        default=False,
        shown=False,
    )
    guidance_interval: Interval = option(
        "Guide only in this share of the noise schedule, where 1 is pure noise; 0.1,0.9 leaves out both ends.",
        default=(0.0, 1.0),
        shown=False,
        metavar="LOW,HIGH",
    )
    against_scale: float | None = option(
        "How far to go away from --against: W in a + W (a - b). Choose it by pictures and by scores of other seeds.",
        shown="1 with --against",
        metavar="W",
        ge=0,
    )
    against_interval: Interval | None = option(
        "Go away from --against only in this share of the noise schedule, where 1 is pure noise.",
        shown="0,1",
        metavar="LOW,HIGH",
    )
    strength: float = option("Factor on what the patch adds: 1 as trained, 0 the bare backbone.", default=1.0)
    batch_size: int = option(
        "Images of one chunk. A chunk is what is drawn at once, always the same images together; lower it when memory "
        "runs out. It moves pixels by a level at most.",
        default=DEFAULT_CHUNK,
        shown=f"{DEFAULT_CHUNK}, at most -n",
        ge=1,
        le=65_536,
    )
    compile: bool = option(
        "Compile the denoiser with torch.compile, for large numbers of images.",
        "--compile",
        default=False,
        shown=False,
    )
    dtype: Dtype = "fp32"
    quantize: Quantize | None = option(
        "Keep the frozen weights of the blocks' linear layers in 8 bits (int8, by torchao) or 4 (nf4, by bitsandbytes, "
        "on CUDA): less memory, and images that are a little other.",
        panel="Speed and memory",
    )

    @model_validator(mode="after")
    def _interval_is_one(self) -> SampleConfig:
        for name, interval in (("guidance", self.guidance_interval), ("against", self.against_interval)):
            low, high = interval or (0, 1)
            if not 0 <= low < high <= 1:
                raise ValueError(f"--{name}-interval {low:g},{high:g}: give two shares of the schedule, as 0.1,0.9")
        if self.compile and self.quantize is not None:
            raise ValueError("--quantize and --compile do not go together")
        return self


def name_sampler(words: Sequence[str]) -> list[str]:
    """Options of ``dmp sample`` in ``words``, which name the sampler even where nobody did.

    Sets that are compared need one sampler, and its default depends on where the weights come from.
    """
    named = any(word == "--sampler" or word.startswith("--sampler=") for word in words)
    return [*words] if named else [*words, "--sampler", default_of(SampleConfig, "sampler")]
