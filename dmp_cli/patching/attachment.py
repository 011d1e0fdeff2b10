"""Attach a patch to a loaded backbone through hooks: all checks first. No module is edited, replaced or renamed."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from ..backbones import Backbone, as_backbone
from ..config import CodecRecord, PatchConfig, PatchRecord
from ..errors import CheckpointError, PatchError
from ..latents import image_size as size_of, load_codec
from .compatibility import check_fit, check_variant, prompt_shape, prompted_blocks
from .expert_layers import find_expert_layers
from .grids import with_grid
from .hooks import ReadGate
from .identity import check_weights, rounded_digests
from .patched import DEFAULT_NAME, PatchedBackbone
from .prompts import Patch


def attach(
    backbone: Backbone | nn.Module, patch: Patch, *, strength: float = 1.0, name: str | None = None, force: bool = False
) -> PatchedBackbone:
    """Attach ``patch`` to ``backbone`` and freeze the backbone.

    A new patch whose prompts are added changes no output bit. Every check comes before the first hook, so a patch that
    does not fit leaves the backbone untouched.

    Threads may call the patched model at the same time, and its blocks may run again in the backward pass. Only where
    each block is compiled for itself and runs again, a backward pass must follow its forward before the next one.

    Args:
        backbone: a backbone, or a model that diffusers loaded, such as ``pipe.unet``. Such a model is patched wherever
            it is called, also inside its pipeline.
        strength: factor on every mixture.
        name: what to call the patch. With a name it is attached beside the patches that are there, and their mixtures
            add up; without one, there must be none.
        force: accept other weights than those the patch was trained on. The sizes must fit nevertheless. Weights that
            are the same in a lower precision, or with an adapter of peft beside them, are no other weights.

    Raises:
        PatchError: the backbone has another family, other sizes or other weights; or it has a patch already, and the
            new one has no name of its own.
    """
    backbone = _behind_the_seam(backbone, patch.record)
    hooks = [hook for source in backbone.gate_sources.values() for hook in source._forward_hooks.values()]
    gates = [hook for hook in hooks if isinstance(hook, ReadGate)]
    if gates and name is None:
        raise PatchError(
            "this backbone has a patch attached already",
            hint="Call detach() on the patched backbone first, or attach this one beside it under a name: "
            'attach(..., name="second").',
        )
    check_fit(backbone, patch)
    if patch.record is not None and not force:
        check_weights(backbone, patch.record)
    _warn_of_half_precision(backbone)
    if backbone.device.type != "meta":  # offloaded weights are nowhere yet; the patch follows them in the forward
        patch.to(backbone.device)
    if not gates:
        return PatchedBackbone(backbone, patch, strength=strength, name=name or DEFAULT_NAME)
    owner = gates[0].link.owner
    if owner is None or name is None:
        raise PatchError(
            "this model is a copy of a patched one, whose patch cannot be reached",
            hint="Attach both patches to the copy's original, or copy the patched backbone as a whole.",
        )
    owner.add(patch, strength=strength, name=name)
    return owner


def detach(model: Backbone | nn.Module, name: str | None = None) -> Backbone | nn.Module:
    """Take the patch called ``name``, or all patches, off ``model`` and return what is below it.

    ``model`` is what :func:`attach` gave, or was given: a patched backbone, a backbone, or a model of diffusers such as
    ``pipe.unet``. With the last patch gone it is bit for bit what it was before. Without a patch, this does nothing.
    """
    if isinstance(model, PatchedBackbone):
        return model.detach(name)
    if (owner := owner_on(model)) is not None:
        owner.detach(name)
    return model


def owner_on(model: nn.Module) -> PatchedBackbone | None:
    """The patched backbone whose patches are on ``model`` now; None: there is none."""
    hooks = (hook for module in model.modules() for hook in module._forward_hooks.values())
    return next((hook.link.owner for hook in hooks if isinstance(hook, ReadGate)), None)


def _warn_of_half_precision(backbone: Backbone) -> None:
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in backbone.parameters()):
        warnings.warn(
            "this backbone keeps its hidden state in half precision, where a mixture under about 0.2 % of it rounds to "
            "zero; keep its weights in float32 and compute under autocast",
            stacklevel=3,
        )


def _behind_the_seam(model: Backbone | nn.Module, record: PatchRecord | None) -> Backbone:
    """``model`` as a backbone: itself, what a patched backbone holds, or a model of diffusers wrapped."""
    if isinstance(model, PatchedBackbone):
        return model.backbone
    if isinstance(model, Backbone):
        return model
    try:
        return as_backbone(model, None if record is None else record.backbone)
    except CheckpointError as error:
        raise PatchError(error.message, hint="Load it with dmp_cli.load_backbone.") from error


def create_patch(
    backbone: Backbone,
    config: PatchConfig | None = None,
    *,
    codec: CodecRecord | None = None,
    image_size: int | str | None = None,
    seed: int = 0,
) -> Patch:
    """Create a new patch for ``backbone``. By default its prompts, or its experts' B, are zero: it changes nothing yet.

    Its own ``config`` says the grid of its prompts, where the given one leaves it open.

    Args:
        config: which mixture it is; None: the paper's.
        codec: codec of the training images; None: the one that goes with the backbone, which is read for its digest.
        image_size: of the training images in pixels: a side, or width x height, such as 832x1216; None: those that the
            backbone makes now.
        seed: seed of the gate's first weights; see :class:`Patch`.

    Raises:
        ConfigError: the variant ``config`` is impossible on this backbone.
        CheckpointError: no codec is named, and that of the backbone is not here.
    """
    config = config or PatchConfig()
    check_variant(backbone, config)
    config = with_grid(config, backbone)
    blocks = prompted_blocks(backbone.list_blocks(), config)
    shapes = [prompt_shape(block, config) for block in blocks]
    layers = find_expert_layers(backbone, blocks, config)
    patch = Patch(config, hidden_shapes=shapes, gate_width=backbone.gate_width, expert_layers=layers, seed=seed)
    if backbone.record is not None:
        if codec is None or image_size is None:
            codec, image_size = _usual(backbone, codec, image_size)
        patch.record = PatchRecord(
            config=config,
            hidden_shapes=[list(shape) for shape in shapes],
            expert_layers=layers or None,
            gate_width=backbone.gate_width,
            backbone=backbone.record,
            rounded=rounded_digests(backbone),
            schedule=backbone.schedule,
            codec=codec,
            image_size=image_size,
            text=backbone.captions.encoder.record if backbone.takes_text and backbone.text_folder else None,
        )
    return patch


def _usual(
    backbone: Backbone, codec: CodecRecord | None, image_size: int | str | None
) -> tuple[CodecRecord, int | str]:
    """Codec and size of the images of ``backbone``, where they are not given."""
    own = load_codec(None, backbone, record=codec)
    return own.record, size_of(own, backbone) if image_size is None else image_size
