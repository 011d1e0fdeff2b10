"""What every field in the config of a diffusers scheduler means for dmp: used, refused, or of no effect here.

A scheduler's config says two things: which noise the weights were trained with, and how its class draws images. The
first is read in full. Of the second, what ``dmp sample`` can follow is a ``SamplingRule``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

# Classes whose noise is a DDPM's: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise, with whole timesteps.
DDPM_KINDS = (
    *("DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler", "DDIMInverseScheduler"),
    *("PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"),
    *("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "RePaintScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler", "DPMSolverSinglestepScheduler"),
    *("DPMSolverSDEScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler", "SASolverScheduler"),
)
# Classes whose noise is a rectified flow's: x_s = (1 - s) x_0 + s noise, with levels s in [0, 1].
FLOW_KINDS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")


def is_flow(given: Mapping[str, Any]) -> bool:
    """Whether a scheduler's config is that of a rectified flow: by its class, or as a solver that was set to one."""
    told = given.get("use_flow_sigmas") is True and given.get("prediction_type") == "flow_prediction"
    return given.get("_class_name") in FLOW_KINDS or told


NOISE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
ZERO_SNR = "rescale_betas_zero_snr"  # True: the last timestep is pure noise
# Any other value changes the noise in a way that ScheduleConfig cannot express.
PLAIN = {
    "trained_betas": None,
    "use_flow_sigmas": False,
    "timestep_type": "discrete",
    "predict_epsilon": True,  # older than prediction_type; False: the model predicts x_0
}
# Read by the samplers of ``dmp sample``, where the file states them.
FOLLOWED = (
    *("variance_type", "clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio"),
    *("sample_max_value", "timestep_spacing", "steps_offset", "set_alpha_to_one"),
)
# Read by ``--sampler pipeline`` alone; of no effect on the noise and on other samplers, each with its reason.
WITHOUT_EFFECT = {
    "they choose the algorithm of the pipeline's own sampler, which a named --sampler replaces": (
        *("solver_order", "solver_type", "solver_p", "algorithm_type", "lower_order_final", "euler_at_final"),
        *("predict_x0", "disable_corrector", "predictor_order", "corrector_order", "tau_func", "skip_prk_steps"),
        *("interpolation_type", "eta", "noise_sampler_seed"),
    ),
    "they choose the few noise levels of the pipeline's own sampler, which a named --sampler and --steps replace": (
        *("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "final_sigmas_type"),
        *("sigma_min", "sigma_max", "lambda_min_clipped"),
    ),
    "they are read only together with use_flow_sigmas, which is refused": (
        *("flow_shift", "use_dynamic_shifting", "time_shift_type", "shift_terminal"),
    ),
    "the first versions of diffusers wrote them and never read them": ("timestep_values", "tensor_format"),
}
_HARMLESS = {name for names in WITHOUT_EFFECT.values() for name in names}


def class_defaults(name: str) -> dict[str, Any]:
    """The defaults of a scheduler class of diffusers, which hold for all fields that a config leaves out."""
    import diffusers

    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    return {key: found.default for key, found in parameters.items() if found.default is not inspect.Parameter.empty}


def unknown_fields(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Fields that are in no list here and state something, each with its value."""
    known = {*NOISE, ZERO_SNR, *PLAIN, *FOLLOWED, *_HARMLESS}
    unknown = [key for key in given if key not in known and not key.startswith("_")]
    return [f"{key} {given[key]}" for key in unknown if given[key] is not None and given[key] != defaults.get(key)]


def followed_fields(given: Mapping[str, Any], *, kind: str) -> dict[str, Any]:
    """The stated fields that ``dmp sample`` follows and that differ from what it does anyway."""
    rule = {key: given[key] for key in FOLLOWED if given.get(key) is not None}
    if not kind.startswith("DDPM"):  # a DPM-Solver says by it only which channels it leaves out, as we always do
        rule.pop("variance_type", None)
    if not rule.get("thresholding"):
        for key in ("thresholding", "dynamic_thresholding_ratio", "sample_max_value"):
            rule.pop(key, None)
    if rule.get("thresholding") or not rule.get("clip_sample") or rule.get("clip_sample_range") == 1:
        rule.pop("clip_sample_range", None)
    plain = {"steps_offset": 0, "set_alpha_to_one": True}
    return {key: value for key, value in rule.items() if key not in plain or plain[key] != value}
