"""What a training checkpoint says of its own training, in the options of the script that wrote it.

A flow-matching transformer such as SiT has a DiT's names and shapes. Only these options tell that it predicts a
velocity, so they are read, and such a checkpoint is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..config import Prediction
from ..errors import CheckpointError
from ..storage import Weights

_FLOW_MODELS = re.compile(r"^(sit[-_/]|lightningdit|meanflow)", re.IGNORECASE)
_MODEL_KEYS = ("model", "model_name", "model_type", "name", "arch", "network")
_OBJECTIVE_KEYS = ("prediction", "prediction_type", "objective", "pred_type", "parameterization", "target")
_OBJECTIVES: dict[str, Prediction] = {
    **dict.fromkeys(("epsilon", "eps", "noise", "pred_noise"), "epsilon"),
    **dict.fromkeys(("v_prediction", "pred_v", "v-prediction", "v"), "v_prediction"),
}
_FLOWS = ("velocity", "flow", "flow_prediction", "vector_field", "score", "rectified_flow", "flow_matching")
_FLOW_FLAGS = ("flow_matching", "rectified_flow", "use_flow", "rf")


def objective_said(weights: Weights) -> Prediction | None:
    """What the backbone in ``weights`` predicts, as its training options say; None: they do not.

    Raises:
        CheckpointError: it was trained by flow matching, which is not supported.
    """
    said = list(_options(weights.about))
    model = next((str(value) for key, value in said if key in _MODEL_KEYS and _FLOW_MODELS.match(str(value))), None)
    flows = [f"{key} {value}" for key, value in said if key == "path_type" and value is not None]
    flows += [f"{key} {value}" for key, value in said if key in _OBJECTIVE_KEYS and str(value).lower() in _FLOWS]
    flows += [key for key, value in said if key in _FLOW_FLAGS and value is True]
    if model is not None or flows:
        names = [f"model {model}"] if model else []
        raise CheckpointError(
            f"{weights.path} was trained by flow matching, which is not supported: its options say "
            + ", ".join(names + flows),
            hint="Give a checkpoint that was trained to predict the noise of a DDPM, such as DiT's.",
        )
    known = (_OBJECTIVES.get(str(value).lower()) for key, value in said if key in _OBJECTIVE_KEYS)
    return next((objective for objective in known if objective is not None), None)


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
