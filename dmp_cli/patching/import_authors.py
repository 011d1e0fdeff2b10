"""The training checkpoints that the paper's authors published, read as patches.

Letters: L blocks, N prompts of a block, D width. In their code the gate reads timestep plus class embedding, and the
backbone learns together with the prompts: a patch of theirs gives their outputs only on the backbone in the same file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..backbones import Backbone, build_from
from ..config import BackboneHints, CodecRecord, PatchConfig
from ..errors import CheckpointError, ConfigError
from ..storage import NOISE_NAME, PATCH_NAMES, Weights, read_weights
from .attachment import create_patch
from .compatibility import backbone_digest
from .prompts import Patch


def import_patch(path: Path, backbone: Backbone, *, codec: CodecRecord, image_size: int) -> Patch:
    """The patch in the authors' checkpoint at ``path``, for the backbone in that same file.

    Args:
        backbone: loaded from ``path``, or from a file with the same weights.
        codec, image_size: what their checkpoint does not say; ``image_size`` in pixels.

    Raises:
        CheckpointError: no prompts in it, parts missing or misshapen, or a DiT of other sizes than ``backbone``.
        ConfigError: ``backbone`` has other weights than the file's own.
    """
    weights = read_authors(path)
    patch = create_patch(backbone, PatchConfig(gate_input="conditioning"), codec=codec, image_size=image_size)
    _check_backbone(weights, backbone)
    patch.load_state_dict(_rename(_check_shapes(weights, patch)), strict=True)  # copies, as float32
    if patch.record is not None:
        patch.record = patch.record.model_copy(update={"training": _describe(weights)})
    return patch


def read_authors(path: Path) -> Weights:
    """The authors' checkpoint at ``path``, backbone and patch apart.

    Raises:
        CheckpointError: unreadable, or it holds no patch or only a part of one.
    """
    weights = read_weights(path)
    if weights.patch:
        return weights
    found = [name for name in PATCH_NAMES if name in weights.tensors]
    if not found:
        raise CheckpointError(
            f"{path} holds no prompts",
            hint="Give a training checkpoint of the paper's authors; a DiT alone is for --backbone.",
        )
    missing = [name for name in PATCH_NAMES if name not in found]
    raise CheckpointError(
        f"{path} holds a part of a patch: {', '.join(found)}, but no {', '.join(missing)}",
        hint="Give the whole training checkpoint.",
    )


def _check_shapes(weights: Weights, patch: Patch) -> dict[str, Tensor]:
    count, width = patch.num_prompts, patch.gate_width
    expected = {
        "prompt_embeddings": (len(patch.hidden_shapes), count, width),  # (L, N, D)
        "gate.weight": (count, width + 1),  # the last input is the block's index, as in LinearGate
        "gate.bias": (count,),
    }
    wrong = [
        f"{name} {tuple(weights.patch[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if tuple(weights.patch[name].shape) != shape
    ]
    if wrong:
        raise CheckpointError(
            f"{weights.path}: its patch does not fit its own backbone: {'; '.join(wrong)}",
            hint="It was changed after training, or comes from other code than the published one.",
        )
    return {name: weights.patch[name] for name in expected}


def _rename(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    prompts = theirs["prompt_embeddings"].unbind(0)  # (N, D) each
    gate = {name: theirs[name] for name in ("gate.weight", "gate.bias")}
    return {**{f"prompts.{index}": prompt for index, prompt in enumerate(prompts)}, **gate}


def _check_backbone(weights: Weights, backbone: Backbone) -> None:
    own = build_from(weights, BackboneHints(sizes=backbone.sizes))
    theirs, given = backbone_digest(own), backbone_digest(backbone)
    if theirs != given:
        raise ConfigError(
            f"the backbone in {weights.path} was trained together with its prompts: its digest is {theirs[:12]}…, that "
            f"of the given backbone {given[:12]}…",
            hint=f"Give the file itself: --backbone {weights.path}, or leave --backbone out.",
        )


def _describe(weights: Weights) -> dict[str, Any]:
    noise = "present, not used" if NOISE_NAME in weights.patch else "absent"
    return {"method": "dmp", "imported_from": weights.path.name, NOISE_NAME: noise}
