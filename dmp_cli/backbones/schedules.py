"""The noise schedule that weights were trained with, from their pipeline's scheduler or from an option."""

from __future__ import annotations

from typing import Any

from ..config import BackboneHints, ScheduleConfig, build
from ..errors import CheckpointError
from ..storage import Weights

_KINDS = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
_STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012}
# Any other value changes the noise in a way that ScheduleConfig cannot express.
_PLAIN = {"trained_betas": None, "rescale_betas_zero_snr": False}


def schedule_of(weights: Weights, hints: BackboneHints, *, family: str) -> ScheduleConfig:
    """The noise schedule that the backbone in ``weights`` was trained with.

    Raises:
        CheckpointError: the schedule is not supported; or nothing names it, for a U-Net, which may predict noise or v.
    """
    if weights.scheduler is not None:
        return _read(weights.scheduler, source=f"the scheduler of {weights.pipeline or weights.path}")
    if family == "unet" and hints.schedule is None:
        raise CheckpointError(
            f"{weights.path} does not say its noise schedule, nor whether it predicts noise or v",
            hint="Give the whole pipeline folder, the one with model_index.json. For a Stable Diffusion that predicts "
            "noise, --schedule scaled_linear is enough.",
        )
    kind = hints.schedule or "linear"
    return build(ScheduleConfig, kind=kind, **(_STABLE_DIFFUSION if kind == "scaled_linear" else {}))


def _read(given: dict[str, Any], *, source: str) -> ScheduleConfig:
    """The schedule in the config of a diffusers scheduler."""
    kind, prediction = given.get("beta_schedule", "linear"), given.get("prediction_type", "epsilon")
    unsupported = [f"{key} {given[key]}" for key, plain in _PLAIN.items() if given.get(key, plain) != plain]
    unsupported += [f"beta_schedule {kind}"] if kind not in _KINDS else []
    unsupported += [f"prediction_type {prediction}"] if prediction not in ("epsilon", "v_prediction") else []
    if unsupported:
        raise CheckpointError(f"{source} is not supported: {', '.join(unsupported)}")
    return build(
        ScheduleConfig,
        kind=_KINDS[kind],
        num_timesteps=given.get("num_train_timesteps", 1000),
        beta_start=given.get("beta_start", 1e-4),
        beta_end=given.get("beta_end", 0.02),
        prediction=prediction,
    )
