"""Read a training checkpoint of the paper's authors as a patch.

In the authors' code the gate reads the timestep plus the class embedding, and the backbone is trained together with the
prompts. Such a patch therefore gives their outputs only on the backbone in the same file.
Letters: L blocks, N prompts of a block, D width.
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
from .identity import backbone_digest
from .prompts import Patch


def import_patch(path: Path, backbone: Backbone, *, codec: CodecRecord, image_size: int | str) -> Patch:
    """Read the patch in the authors' checkpoint at ``path``, for the backbone in the same file.

    Args:
        backbone: the backbone, loaded from ``path`` or from a file with the same weights.
        codec: codec of the training images, which the checkpoint does not name.
        image_size: side of the training images in pixels, which the checkpoint does not name either.

    Raises:
        CheckpointError: the checkpoint has no prompts, a part is missing or misshapen, or its DiT has other sizes than
            ``backbone``.
        ConfigError: ``backbone`` has other weights than the DiT in the checkpoint.
    """
    weights = read_authors(path)
    patch = create_patch(
        backbone, PatchConfig(gate_input="conditioning", prompt_grid=None), codec=codec, image_size=image_size
    )
    _check_backbone(weights, backbone)
    patch.load_state_dict(_rename(_check_shapes(weights, patch)), strict=True)  # copies, as float32
    if patch.record is not None:
        patch.record = patch.record.model_copy(update={"training": _describe(weights)})
    return patch


def read_authors(path: Path) -> Weights:
    """Read the authors' checkpoint at ``path``, with the tensors of backbone and patch separated.

    Raises:
        CheckpointError: the file cannot be read, or holds no patch or only a part of one.
    """
    weights = read_weights(path)
    if weights.patch:
        return weights
    found = [name for name in PATCH_NAMES if name in weights.tensors]
    if not found:
        raise CheckpointError(
            f"{path} holds no prompts",
            hint="Give a training checkpoint of the paper's authors. Give a DiT without prompts with --backbone.",
        )
    missing = [name for name in PATCH_NAMES if name not in found]
    raise CheckpointError(
        f"{path} holds only a part of a patch: {', '.join(found)}, but no {', '.join(missing)}",
        hint="Give the whole training checkpoint.",
    )


def _check_shapes(weights: Weights, patch: Patch) -> dict[str, Tensor]:
    """The tensors of the authors' patch, checked to have the shapes of ``patch``."""
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
            hint="The file was changed after training, or was not written by the published code.",
        )
    return {name: weights.patch[name] for name in expected}


def _rename(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' names -> those of :class:`Patch`."""
    prompts = theirs["prompt_embeddings"].unbind(0)  # (N, D) each
    gate = {name: theirs[name] for name in ("gate.weight", "gate.bias")}
    return {**{f"prompts.{index}": prompt for index, prompt in enumerate(prompts)}, **gate}


def _check_backbone(weights: Weights, backbone: Backbone) -> None:
    """Raise ConfigError if ``backbone`` has other weights than the DiT in the checkpoint."""
    own = build_from(weights, BackboneHints(sizes=backbone.sizes))
    theirs, given = backbone_digest(own), backbone_digest(backbone)
    if theirs != given:
        raise ConfigError(
            f"the backbone in {weights.path} was trained together with its prompts: its digest is {theirs[:12]}…, but "
            f"that of the given backbone is {given[:12]}…",
            hint=f"Give the same file with --backbone {weights.path}, or leave --backbone out.",
        )


def _describe(weights: Weights) -> dict[str, Any]:
    """The patch record's entry about its training."""
    noise = "present, not used" if NOISE_NAME in weights.patch else "absent"
    return {"method": "dmp", "imported_from": weights.path.name, NOISE_NAME: noise}
