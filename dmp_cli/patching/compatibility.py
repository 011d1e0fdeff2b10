"""Check that a patch fits a backbone: its variant, its sizes, and the weights it was trained on."""

from __future__ import annotations

import math

from ..backbones import Backbone, Block
from ..config import PatchConfig, ScheduleConfig
from ..errors import ConfigError, PatchError
from .expert_layers import find_expert_layers, layer_of
from .prompts import Patch

_PREPENDED = 50  # prompts per block in the paper's prepend variant (Table 4d)


def check_variant(backbone: Backbone, config: PatchConfig) -> None:
    """Raise ConfigError if ``backbone``, which may be on ``meta``, cannot have the variant ``config``."""
    find_expert_layers(backbone, prompted_blocks(backbone.list_blocks(), config), config)
    if config.gate_input not in backbone.gate_sources:
        raise ConfigError(
            f"--gate-input {config.gate_input}: this backbone takes no class; its gate can read the timestep only"
        )
    block = backbone.list_blocks()[0]
    if len(block.hidden_shape) != 2 and config.has_prompts:
        _check_on_maps(config)
    count = prompt_shape(block, config)[0] if config.has_prompts else config.experts_per_block
    if config.position == "prepend" and not backbone.takes_more_tokens:
        raise ConfigError(
            "--position prepend: the blocks of this backbone take as many tokens as the image has, and no more"
        )
    if config.top_k is not None and config.top_k > count:
        what = "a block of this backbone has" if config.has_prompts else "a block has"
        raise ConfigError(f"--top-k {config.top_k}: {what} {count} {'prompts' if config.has_prompts else 'experts'}")


def _check_on_maps(config: PatchConfig) -> None:
    """Raise ConfigError for a variant that is impossible on feature maps."""
    if config.prompt_grid is not None:
        raise ConfigError("--prompt-grid is for token backbones; prompts on feature maps have a grid of their own")
    if config.position == "prepend":
        raise ConfigError("--position prepend is for token backbones; this one works on feature maps")
    if config.gate == "attention":
        raise ConfigError(
            "--gate attention compares prompts of one width with the timestep; the blocks of this backbone differ in "
            "width"
        )
    if config.selection == "hard":
        raise ConfigError(
            "--selection hard keeps the top k prompts of a block; the blocks of this backbone have grids of different "
            "sizes, pooled from one map"
        )


def prompt_shape(block: Block, config: PatchConfig) -> tuple[int, ...]:
    """Shape of a block's prompts: that of its input if they are added, (num_prompts, D) if they are prepended.

    With a grid of their own, they have its number of places.
    """
    if config.prompt_grid is not None and len(block.hidden_shape) == 2:
        return (math.prod(config.prompt_grid), block.hidden_shape[-1])
    if config.position == "add":
        return block.hidden_shape
    return (config.num_prompts or _PREPENDED, block.hidden_shape[-1])


def prompted_blocks(blocks: list[Block], config: PatchConfig) -> list[Block]:
    """The blocks that get prompts: the first ``config.depth``, or all. Raises ConfigError if there are fewer."""
    if config.depth is not None and config.depth > len(blocks):
        raise ConfigError(f"--depth {config.depth}: this backbone has {len(blocks)} blocks")
    return blocks[: config.depth]


def check_fit(backbone: Backbone, patch: Patch) -> None:
    """Raise PatchError if ``patch`` was made for another family or other sizes. The message lists the differences."""
    wrong = _differences(backbone, patch)
    if wrong:
        raise PatchError(
            "this patch belongs to another backbone: " + "; ".join(wrong),
            hint="Give the backbone it was trained on with --checkpoint, or train a new patch.",
        )


def _other_flow(theirs: ScheduleConfig, ours: ScheduleConfig) -> str | None:
    """What differs where a flow is on one side at least, in words. The tensors of a SiT and a DiT are the same."""
    if theirs.flow is None and ours.flow is None:
        return None
    told = [(one.objective, one.kind, one.prediction) for one in (theirs, ours)]
    if told[0] == told[1]:
        return None
    return "--objective {} ({}, {}), not {} ({}, {})".format(*told[0], *told[1])


def _differences(backbone: Backbone, patch: Patch) -> list[str]:
    if patch.record is not None and patch.record.backbone.family != backbone.family:
        # the sizes of two families have nothing in common
        return [f"family {patch.record.backbone.family}, not {backbone.family}"]
    if patch.record is not None and (told := _other_flow(patch.record.schedule, backbone.schedule)) is not None:
        return [told]
    blocks = backbone.list_blocks()
    own = patch.config.model_copy(update={"num_prompts": patch.num_prompts or None})
    expected = [prompt_shape(block, own) for block in blocks[: len(patch.hidden_shapes)]]
    wrong = []
    if patch.record is not None and patch.record.backbone.sizes != backbone.sizes:
        theirs, ours = patch.record.backbone.sizes, backbone.sizes
        wrong += [
            f"{k} {theirs.get(k)}, not {ours.get(k)}" for k in sorted({*theirs, *ours}) if theirs.get(k) != ours.get(k)
        ]
    if len(patch.hidden_shapes) > len(blocks):
        wrong.append(f"{len(patch.hidden_shapes)} prompted blocks, not at most {len(blocks)}")
    elif patch.hidden_shapes != expected:
        wrong.append(f"prompts of shape {patch.hidden_shapes[:1]}, not {expected[:1]}")
    for block, layers in zip(blocks, patch.expert_layers, strict=False):
        for layer in layers:
            if layer_of(block.module, layer) is None:
                wrong.append(
                    f"experts of {layer.name}, {layer.inputs} -> {layer.outputs}, which is not in {block.name}"
                )
    if patch.config.gate_input not in backbone.gate_sources:
        wrong.append(f"a gate that reads the {patch.config.gate_input}, which this backbone does not have")
    if patch.gate_width != backbone.gate_width:
        wrong.append(f"gate width {patch.gate_width}, not {backbone.gate_width}")
    return wrong
