"""Which of the linear layers of blocks are meant by names such as ``qkv`` or ``attn.qkv``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from ..errors import ConfigError


def pick_layers(
    blocks: Sequence[Mapping[str, nn.Linear]], targets: Sequence[str], *, option: str
) -> list[dict[str, nn.Linear]]:
    """Of each block's linear layers, by their names inside it, those whose last parts are one of ``targets``.

    Raises:
        ConfigError: a name matches no layer of any block, or none is named; the hint lists the layers that there are.
    """
    known = dict.fromkeys(name for layers in blocks for name in layers)  # an ordered set
    picked = [
        {name: layer for name, layer in layers.items() if any(_is_called(name, target) for target in targets)}
        for layers in blocks
    ]
    wrong = [repr(target) for target in targets if not any(_is_called(name, target) for name in known)]
    if wrong or not any(picked):
        problem = f"{', '.join(wrong)}: no linear layer of a block has this name" if wrong else "must name some layers"
        raise ConfigError(f"{option} {problem}", hint=f"The linear layers of a block are {', '.join(known)}.")
    return picked


def _is_called(name: str, target: str) -> bool:
    """Whether the last parts of a dotted name are ``target``."""
    return bool(target) and f".{name}".endswith(f".{target}")
