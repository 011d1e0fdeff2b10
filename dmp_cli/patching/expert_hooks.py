"""The hooks that bring low-rank experts into a backbone's forward: each layer's output plus the experts' update.

Letters: B batch, E experts of a block.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..config import ExpertLayer
from .expert_layers import above, layer_of
from .experts import LowRankExperts

if TYPE_CHECKING:
    from .hooks import Link


class _Weights(threading.local):
    """The gate's weights for one layer's experts in the running forward of a thread."""

    def __init__(self) -> None:
        self.weights: Tensor | None = None  # (B, E)


class AddExperts:
    """Forward hook on one linear layer: adds what its experts give, weighed by the gate.

    ``ReadGate`` sets the weights before each forward of the blocks.
    """

    def __init__(self, link: Link, experts: LowRankExperts) -> None:
        self.link, self.experts, self.here = link, experts, _Weights()

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
        if not self.link.here.adds:
            return None
        assert self.here.weights is not None
        given = args[0] if args else next(iter(kwargs.values()))
        strength = self.link.here.strength
        return self.experts.add(output, given, weights=self.here.weights, strength=strength)

    def __getstate__(self) -> dict[str, Any]:
        # The weights belong to one forward. They are results of autograd, which can be neither copied nor pickled.
        return {"link": self.link, "experts": self.experts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, here=_Weights())


class TieTo:
    """Pre-hook on a module between a block and its layers: ties the module's input to the running forward.

    Where such a module runs again in a backward pass without its block, its experts then have the weights of their own
    forward.
    """

    def __init__(self, link: Link) -> None:
        self.link = link

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if given is not None:
            self.link.tie(given)


def hook_experts(
    link: Link, block: nn.Module, layers: list[ExpertLayer], experts: nn.ModuleList
) -> tuple[list[AddExperts], list[RemovableHandle]]:
    """Hook the ``experts`` of one block's ``layers`` into ``block``: the hooks, and their handles."""
    hooks: list[AddExperts] = []
    handles = [one.register_forward_pre_hook(TieTo(link), with_kwargs=True) for one in above(block, layers)]
    for described, own in zip(layers, experts, strict=True):
        layer = layer_of(block, described)
        assert layer is not None, "compatibility.check_fit has found it"
        assert isinstance(own, LowRankExperts)
        hooks.append(AddExperts(link, own))
        handles.append(layer.register_forward_hook(hooks[-1], with_kwargs=True))
    return hooks, handles
