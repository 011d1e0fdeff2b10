"""Which layers of a backbone low-rank experts update, and where they are found again."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..backbones import Backbone, Block
from ..config import ExpertLayer, PatchConfig
from ..errors import ConfigError

_WRAPPED = ".base_layer"  # what peft calls a layer that it has wrapped


def find_expert_layers(backbone: Backbone, blocks: Sequence[Block], config: PatchConfig) -> list[list[ExpertLayer]]:
    """The linear layers of each of ``blocks`` that the experts of ``config`` update; empty without experts.

    Raises:
        ConfigError: a name of ``--expert-targets`` matches no layer; the hint lists the layers that there are.
    """
    if not config.experts_per_block:
        return []
    targets = backbone.lora_targets if config.expert_targets is None else config.expert_targets
    known: dict[str, None] = {}  # an ordered set
    found: list[list[ExpertLayer]] = []
    for block in blocks:
        own = {
            name.removesuffix(_WRAPPED): layer
            for name, layer in block.module.named_modules()
            if isinstance(layer, nn.Linear) and ".lora_" not in name
        }
        known |= dict.fromkeys(own)
        chosen = {name: layer for name, layer in own.items() if any(_is_called(name, target) for target in targets)}
        found.append([ExpertLayer(name=n, inputs=o.in_features, outputs=o.out_features) for n, o in chosen.items()])
    wrong = [repr(target) for target in targets if not any(_is_called(name, target) for name in known)]
    if blocks and (wrong or not any(found)):
        problem = f"{', '.join(wrong)}: no linear layer of a block has this name" if wrong else "must name some layers"
        raise ConfigError(f"--expert-targets {problem}", hint=f"The linear layers of a block are {', '.join(known)}.")
    return found


def _is_called(name: str, target: str) -> bool:
    """Whether the last parts of a dotted name are ``target``."""
    return bool(target) and f".{name}".endswith(f".{target}")


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


def above(block: nn.Module, layers: Sequence[ExpertLayer]) -> list[nn.Module]:
    """The modules between ``block`` and the layers inside it: each can be what runs again in a backward pass."""
    names = {".".join(parts[:end]) for one in layers if (parts := one.name.split(".")) for end in range(1, len(parts))}
    return [block.get_submodule(name) for name in sorted(names)]
