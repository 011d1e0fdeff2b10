"""The noise schedule that weights were trained with, from their pipeline's scheduler or from an option."""

from __future__ import annotations

from typing import Any

from ..config import BackboneHints, SamplingRule, ScheduleConfig, build
from ..errors import CheckpointError, ConfigError
from ..storage import Weights
from .scheduler_fields import (
    DDPM_KINDS,
    FLOW_KINDS,
    NOISE,
    PLAIN,
    ZERO_SNR,
    class_defaults,
    followed_fields,
    is_flow,
    unknown_fields,
)
from .training_args import Said, model_said, objective_said

_KINDS = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
RECTIFIED = ScheduleConfig(kind="linear", prediction="velocity", flow="rectified")  # of Stable Diffusion 3, Flux, …
_STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012}


def schedule_of(
    weights: Weights,
    hints: BackboneHints,
    *,
    family: str,
    learns_sigma: bool = False,
    trained_as: ScheduleConfig | None = None,
) -> ScheduleConfig:
    """The noise schedule that the backbone in ``weights`` was trained with; ``trained_as``: that of all its family.

    Raises:
        CheckpointError: the schedule is not supported, or the training was flow matching; or nothing names it, for a
            U-Net, which may predict noise or v.
    """
    if trained_as is not None:
        return _of_family(trained_as, weights, family=family)
    said = objective_said(weights, hint=hints.objective)
    if said.flow is not None or hints.objective in ("sit", "repa"):
        return _flow_of(weights, hints, said, family=family)
    if weights.scheduler is not None:
        source = f"the scheduler of {weights.pipeline or weights.path}"
        given = _with_objective(weights, hints) if weights.holds else weights.scheduler
        return _read(given, source=source, learns_sigma=learns_sigma)
    if family == "unet" and hints.schedule is None:
        raise CheckpointError(
            f"{weights.path} does not say its noise schedule, nor whether it predicts noise or v",
            hint="Give the whole pipeline folder, the one with model_index.json. For a Stable Diffusion that predicts "
            "noise, --schedule scaled_linear is enough.",
        )
    kind, prediction = hints.schedule or "linear", said.prediction or hints.objective or "epsilon"
    return build(
        ScheduleConfig, kind=kind, prediction=prediction, **(_STABLE_DIFFUSION if kind == "scaled_linear" else {})
    )


def _of_family(known: ScheduleConfig, weights: Weights, *, family: str) -> ScheduleConfig:
    """``known``, the flow of a family. Raises CheckpointError where the pipeline's scheduler is of another kind."""
    if weights.scheduler is None:
        return known
    source, kind = f"the scheduler of {weights.pipeline or weights.path}", weights.scheduler.get("_class_name")
    if not is_flow(weights.scheduler):
        raise CheckpointError(
            f"{source} is a {kind}, and a {family} is a flow",
            hint=f"Put the config of a {FLOW_KINDS[0]} in scheduler_config.json, as the model was published with.",
        )
    count = weights.scheduler.get("num_train_timesteps", 1000)
    if count != 1000:
        raise CheckpointError(f"{source} is not supported: its num_train_timesteps is {count}, not 1000")
    return known


def named_schedule(kind: str | None, objective: str | None) -> ScheduleConfig:
    """The schedule that --schedule and --objective name; None stands for the default. Raises ConfigError."""
    told: dict[str, Any] = {} if kind is None else {"kind": kind}
    if objective in ("sit", "repa"):
        return build(ScheduleConfig, **told, flow=objective, prediction="velocity")
    return build(ScheduleConfig, **told, **({} if objective is None else {"prediction": objective}))


def _flow_of(weights: Weights, hints: BackboneHints, said: Said, *, family: str) -> ScheduleConfig:
    """The flow that the file says, and that the options say where it says nothing.

    Raises:
        ConfigError: the two contradict each other, or the weights are no DiT of Meta's names.
    """
    flow = said.flow or hints.objective
    if family != "dit" or weights.config is not None or weights.scheduler is not None:
        raise ConfigError(
            f"--objective {flow} is for weights of SiT or REPA under their own names; {weights.path} holds a {family} "
            "of diffusers",
        )
    asked: list[tuple[str, str | None, str | None]]
    asked = [("objective", hints.objective, flow), ("schedule", hints.schedule, said.kind)]
    asked += [("objective", flow, said.prediction)] if said.flow is None else []
    for option, hint, told in asked:
        if hint is not None and told is not None and hint != told:
            raise ConfigError(
                f"--{option} {hint} contradicts {weights.path}, which says {told}", hint=f"Leave --{option} out."
            )
    kind, prediction = hints.schedule or said.kind or "linear", said.prediction or "velocity"
    return build(ScheduleConfig, kind=kind, prediction=prediction, flow=flow)


def _with_objective(weights: Weights, hints: BackboneHints) -> dict[str, Any]:
    """The scheduler of an original single file, with the objective, which the file does not say."""
    given = dict(weights.scheduler or {})
    if hints.objective is None and given["prediction_type"] is None:
        raise CheckpointError(
            f"{weights.path} does not say whether it predicts noise or v, as no Stable Diffusion 2 does",
            hint="Give --objective epsilon for a 512-pixel base, or --objective v_prediction for a 768-pixel one.",
        )
    return {**given, "prediction_type": hints.objective or given["prediction_type"]}


def assumed_of(weights: Weights, hints: BackboneHints) -> tuple[str, ...]:
    """What :func:`schedule_of` assumes of the training, in words; nothing where files or options say it all."""
    if weights.holds:  # an original Stable Diffusion: its noise is known, but not what it predicts
        return () if hints.objective else ("no file says what the backbone predicts: assumed the noise (--objective)",)
    said = objective_said(weights, hint=hints.objective)
    if said.flow is None and hints.objective in ("sit", "repa"):
        return () if hints.schedule else ("no file says which interpolant the flow has: assumed linear (--schedule)",)
    if said.flow is not None:
        words = "here all levels are drawn alike, and no loss is weighted, unless --levels and --loss-weight say so"
        return (f"its training had {', '.join(said.ignored)}; {words}",) if said.ignored else ()
    if weights.scheduler is not None or model_said(weights) is not None:  # the code of DiT knows one objective only
        return ()
    parts = [] if hints.schedule else ["a linear noise schedule (--schedule)"]
    parts += [] if hints.objective or said.prediction else ["a prediction of the noise (--objective)"]
    return (f"no file says how the backbone was trained: assumed {' and '.join(parts)}",) if parts else ()


def _read(given: dict[str, Any], *, source: str, learns_sigma: bool) -> ScheduleConfig:
    """The schedule in the config of a diffusers scheduler; absent fields have the defaults of its class."""
    name = given.get("_class_name")
    if name not in DDPM_KINDS:
        raise CheckpointError(
            f"{source} is a {name}: only the noise of a DDPM is supported"
            if name
            else f"{source} is not supported: its config has no _class_name",
            hint=f"Supported are {', '.join(DDPM_KINDS[:6])} and others of their kind. If the weights were trained "
            "with the noise of one of these, put its config in scheduler_config.json.",
        )
    defaults = class_defaults(name)
    known = {"prediction_type": "epsilon", **defaults, **given}
    if missing := [key for key in NOISE if key not in known]:
        raise CheckpointError(f"{source} is not supported: its config does not say {', '.join(missing)}")
    wrong = [f"{key} {given[key]}" for key, plain in PLAIN.items() if given.get(key, plain) not in (plain, None)]
    wrong += [f"{ZERO_SNR} {given[ZERO_SNR]}"] if not isinstance(given.get(ZERO_SNR, False), bool | None) else []
    wrong += [f"beta_schedule {known['beta_schedule']}"] if known["beta_schedule"] not in list(_KINDS) else []
    wrong += [f"prediction_type {known['prediction_type']}"] if known["prediction_type"] not in _PREDICTIONS else []
    wrong += unknown_fields(given, defaults)
    rule = followed_fields(given, kind=name)
    wrong += (
        ["variance_type learned_range for a backbone that predicts no variance"]
        if (rule.get("variance_type") == "learned_range" and not learns_sigma)
        else []
    )
    if wrong:
        raise CheckpointError(f"{source} is not supported: {', '.join(wrong)}")
    try:
        return build(
            ScheduleConfig,
            kind=_KINDS[known["beta_schedule"]],
            num_timesteps=known["num_train_timesteps"],
            beta_start=known["beta_start"],
            beta_end=known["beta_end"],
            prediction=known["prediction_type"],
            zero_terminal_snr=given.get(ZERO_SNR) or None,
            sampling=build(SamplingRule, **rule) if rule else None,
        )
    except ConfigError as error:
        problem = error.message.replace("--", "").replace("-", "_")  # a field of the file, not an option
        raise CheckpointError(f"{source} is not supported: {problem}") from error
