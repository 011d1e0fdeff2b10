"""What a training checkpoint says of its own training, in the options of the script that wrote it.

A flow-matching transformer such as SiT has a DiT's names and shapes. Only these options tell that it predicts a
velocity, and in which direction of time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..config import Flow, Objective, Prediction, ScheduleKind
from ..errors import CheckpointError
from ..storage import Weights

_SIT = re.compile(r"^sit[-_/]", re.IGNORECASE)
_OTHER_FLOWS = re.compile(r"^(lightningdit|meanflow)", re.IGNORECASE)
_MODEL_KEYS = ("model", "model_name", "model_type", "name", "arch", "network")
_OBJECTIVE_KEYS = ("prediction", "prediction_type", "objective", "pred_type", "parameterization", "target")
_OBJECTIVES: dict[str, Prediction] = {
    **dict.fromkeys(("epsilon", "eps", "noise", "pred_noise"), "epsilon"),
    **dict.fromkeys(("v_prediction", "pred_v", "v-prediction", "v"), "v_prediction"),
    **dict.fromkeys(("sample", "pred_x0", "x0", "x_start", "pred_x_start"), "sample"),
}
_FLOWS = ("velocity", "flow", "flow_prediction", "vector_field", "score", "rectified_flow", "flow_matching")
_FLOW_FLAGS = ("flow_matching", "rectified_flow", "use_flow", "rf")
_REPA_KEYS = ("enc_type", "proj_coeff", "encoder_depth")  # options that REPA's script has, and SiT's has not
_PATHS: dict[str, ScheduleKind] = {"linear": "linear", "gvp": "cosine", "cosine": "cosine", "vp": "vp"}
_PREDICTED: dict[str, Prediction] = {"velocity": "velocity", "v": "velocity", "noise": "epsilon", "score": "score"}
_WEIGHTED = {"loss_weight": (None, "None", "none"), "weighting": (None, "uniform")}  # with values of no effect
PROJECTORS = "projectors."  # of REPA alone: what its loss compares with an image encoder


class Said(NamedTuple):
    """What training options say; None: they do not say it."""

    flow: Flow | None = None
    kind: ScheduleKind | None = None  # of a flow
    prediction: Prediction | None = None
    ignored: tuple[str, ...] = ()  # of a flow: what its training did and ours does not, as options and values


def objective_said(weights: Weights, *, hint: Objective | None = None) -> Said:
    """What the backbone in ``weights`` predicts, as its training options say.

    ``hint`` says which flow it is where the options only say that it is one.

    Raises:
        CheckpointError: a flow of another kind than SiT's and REPA's, or one that the options leave open.
    """
    said = list(_options(weights.about))
    models = [str(value) for key, value in said if key in _MODEL_KEYS]
    flows = [f"{key} {value}" for key, value in said if key == "path_type" and value is not None]
    flows += [f"{key} {value}" for key, value in said if key in _OBJECTIVE_KEYS and str(value).lower() in _FLOWS]
    flows += [key for key, value in said if key in _FLOW_FLAGS and value is True]
    named = [f"model {model}" for model in models if _SIT.match(model) or _OTHER_FLOWS.match(model)]
    is_repa = any(key in _REPA_KEYS for key, _ in said) or any(name.startswith(PROJECTORS) for name in weights.tensors)
    if not (named or flows or is_repa):
        known = (_OBJECTIVES.get(str(value).lower()) for key, value in said if key in _OBJECTIVE_KEYS)
        return Said(prediction=next((objective for objective in known if objective is not None), None))
    is_sit = any(_SIT.match(model) for model in models)
    flow = "repa" if is_repa else "sit" if is_sit else hint if hint in ("sit", "repa") else None
    path, predicted = (_value_of(said, keys) for keys in (("path_type",), _OBJECTIVE_KEYS))
    is_known = (path is None or path in _PATHS) and (not is_sit or predicted is None or predicted in _PREDICTED)
    if flow is None or not is_known or any(_OTHER_FLOWS.match(model) for model in models):
        raise CheckpointError(
            f"{weights.path} was trained by flow matching, and not by the code of SiT or REPA: its options say "
            + ", ".join(named + flows),
            hint="Where a DiT was trained like one of them, give --objective sit (time 0 is noise) or --objective repa "
            "(time 0 is data).",
        )
    ignored = tuple(f"{key} {value}" for key, value in said if key in _WEIGHTED and value not in _WEIGHTED[key])
    return Said(flow, _PATHS[path or "linear"], _PREDICTED.get(predicted or "velocity", "velocity"), ignored)


def _value_of(said: list[tuple[str, Any]], keys: Sequence[str]) -> str | None:
    """The first value of one of ``keys`` in lower case; None: no key has one."""
    return next((str(value).lower() for key, value in said if key in keys and value is not None), None)


def size_said(weights: Weights, *keys: str) -> int | None:
    """A whole number that the training options give under one of ``keys``; None: they do not."""
    found = (value for key, value in _options(weights.about) if key in keys)
    return next((v for v in found if isinstance(v, int) and not isinstance(v, bool) and v >= 0), None)


def model_said(weights: Weights) -> str | None:
    """The name of a public size of DiT that the training options give, such as ``DiT-XL/2``; None: they do not."""
    names = (str(value) for key, value in _options(weights.about) if key in _MODEL_KEYS)
    return next((name for name in names if re.fullmatch(r"dit-(s|b|l|xl)/?[248]", name.lower())), None)


def _options(about: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All options by their own names, from any depth."""
    for key, value in about.items():
        if isinstance(value, Mapping):
            yield from _options(value)
        else:
            yield str(key).rpartition(".")[2], value
