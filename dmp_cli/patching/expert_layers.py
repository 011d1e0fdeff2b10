"""Which layers of a backbone low-rank experts update, and where they are found again."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..backbones import Backbone, Block
from ..config import ExpertLayer, PatchConfig
from .targets import pick_layers

_WRAPPED = ".base_layer"  # what peft calls a layer that it has wrapped


def find_expert_layers(backbone: Backbone, blocks: Sequence[Block], config: PatchConfig) -> list[list[ExpertLayer]]:
    """The linear layers of each of ``blocks`` that the experts of ``config`` update; empty without experts.

    Raises:
        ConfigError: a name of ``--expert-targets`` matches no layer; the hint lists the layers that there are.
    """
    if not (config.experts_per_block and blocks):
        return []
    targets = backbone.lora_targets if config.expert_targets is None else config.expert_targets
    own = [
        {
            name.removesuffix(_WRAPPED): layer
            for name, layer in block.module.named_modules()
            if isinstance(layer, nn.Linear) and ".lora_" not in name
        }
        for block in blocks
    ]
    return [
        [ExpertLayer(name=name, inputs=one.in_features, outputs=one.out_features) for name, one in layers.items()]
        for layers in pick_layers(own, targets, option="--expert-targets")
    ]


def layer_of(block: nn.Module, layer: ExpertLayer) -> nn.Linear | None:
    """The layer inside ``block`` that ``layer`` describes; None where there is none of this name and size."""
    for name in (layer.name + _WRAPPED, layer.name):
        try:
            found = block.get_submodule(name)
        except AttributeError:
            continue
        sizes = getattr(found, "in_features", None), getattr(found, "out_features", None)
        return found if isinstance(found, nn.Linear) and sizes == (layer.inputs, layer.outputs) else None
    return None


def modules_around(block: nn.Module, layers: Sequence[ExpertLayer]) -> list[nn.Module]:
    """The modules inside ``block`` beside these layers: any can be the first to run again in a backward pass."""
    own = [layer_of(block, layer) for layer in layers]
    return [module for module in block.modules() if module is not block and all(module is not one for one in own)]
