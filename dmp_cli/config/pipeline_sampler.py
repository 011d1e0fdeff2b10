"""The sampler of a diffusers pipeline: the class of its scheduler, and every field that its config may state."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import Growing

# The classes of diffusers that are built, and no other: each draws the same for an image alone as in a chunk, and takes
# its noise from a generator for each image. The parallel ones compute as those without the word.
SchedulerKind = Literal[
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
]
_Flag = Annotated[bool, Field(strict=True)]
_Count = Annotated[int, Field(ge=0, lt=1 << 31, strict=True)]
_Order = Annotated[int, Field(ge=1, le=8, strict=True)]
_Positive = Annotated[float, Field(gt=0, strict=True)]


class PipelineSampler(Growing):
    """A scheduler class of diffusers and the fields of its config, but for the noise schedule; None: no such field."""

    later: ClassVar[frozenset[str] | None] = None  # only what is stated is written

    kind: SchedulerKind
    variance_type: Literal["fixed_small", "fixed_small_log", "fixed_large", "learned_range"] | None = None
    clip_sample: _Flag | None = None
    clip_sample_range: _Positive | None = None
    thresholding: _Flag | None = None
    dynamic_thresholding_ratio: Annotated[float, Field(ge=0, le=1, strict=True)] | None = None
    sample_max_value: _Positive | None = None
    timestep_spacing: Literal["leading", "trailing", "linspace"] | None = None
    steps_offset: _Count | None = None
    set_alpha_to_one: _Flag | None = None
    skip_prk_steps: _Flag | None = None
    interpolation_type: Literal["linear", "log_linear"] | None = None
    use_karras_sigmas: _Flag | None = None
    use_exponential_sigmas: _Flag | None = None
    use_beta_sigmas: _Flag | None = None
    use_lu_lambdas: _Flag | None = None
    sigma_min: _Positive | None = None
    sigma_max: _Positive | None = None
    final_sigmas_type: Literal["zero", "sigma_min"] | None = None
    solver_order: _Order | None = None
    solver_type: Literal["midpoint", "heun", "logrho", "bh1", "bh2"] | None = None
    algorithm_type: Literal["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"] | None = None
    lower_order_final: _Flag | None = None
    euler_at_final: _Flag | None = None
    lambda_min_clipped: Annotated[float, Field(strict=True)] | None = None
    predict_x0: _Flag | None = None
    disable_corrector: tuple[_Count, ...] | None = None
    use_flow_sigmas: _Flag | None = None
    flow_shift: _Positive | None = None
    shift: _Positive | None = None
    use_dynamic_shifting: _Flag | None = None
    base_shift: _Positive | None = None
    max_shift: _Positive | None = None
    base_image_seq_len: _Count | None = None
    max_image_seq_len: _Count | None = None
    shift_terminal: _Positive | None = None
    time_shift_type: Literal["exponential", "linear"] | None = None
    invert_sigmas: Literal[False] | None = None
    stochastic_sampling: Literal[False] | None = None  # its noise would be one for all images of a chunk
