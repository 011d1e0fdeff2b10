"""The hooks that bring low-rank experts into a backbone's forward: each layer's output plus the experts' update.

Letters: B batch, E experts of a block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..config import ExpertLayer
from .expert_layers import layer_of, modules_around
from .experts import LowRankExperts
from .forwards import PerThread

if TYPE_CHECKING:
    from .hooks import Link


class _Weights:
    """The gate's weights for one layer's experts in the running forward of a thread."""

    def __init__(self) -> None:
        self.weights: Tensor | None = None  # (B, E)


class AddExperts:
    """Forward hook on one linear layer: adds what its experts give, weighed by the gate.

    ``ReadGate`` sets the weights before each forward of the blocks.
    """

    def __init__(self, link: Link, experts: LowRankExperts) -> None:
        self.link, self.experts, self._threads = link, experts, PerThread(_Weights)

    @property
    def here(self) -> _Weights:
        """The gate's weights in the running thread."""
        return self._threads.state

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
        if not self.link.here.adds:
            return None
        given = args[0] if args else next(iter(kwargs.values()))
        assert self.here.weights is not None
        strength = self.link.here.strength
        return self.experts.add(output, given, weights=self.here.weights, strength=strength)

    def __getstate__(self) -> dict[str, Any]:
        # The weights belong to one forward. They are results of autograd, which can be neither copied nor pickled.
        return {"link": self.link, "experts": self.experts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _threads=PerThread(_Weights))


class TieTo:
    """Pre-hook on a module inside a block: ties what the module is given to the running forward.

    In a backward pass a block's forward can run again without the block's own hooks, and in a thread of autograd that
    has run no forward. The first module that is given what it was given before then brings back the weights.
    """

    def __init__(self, link: Link) -> None:
        self.link = link

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor):
                self.link.tie(value, alone=True)


def hook_experts(
    link: Link, block: nn.Module, layers: list[ExpertLayer], experts: nn.ModuleList
) -> tuple[list[AddExperts], list[RemovableHandle]]:
    """Hook the ``experts`` of one block's ``layers`` into ``block``: the hooks, and their handles."""
    hooks: list[AddExperts] = []
    handles = [one.register_forward_pre_hook(TieTo(link), with_kwargs=True) for one in modules_around(block, layers)]
    for described, own in zip(layers, experts, strict=True):
        layer = layer_of(block, described)
        assert layer is not None, "compatibility.check_fit has found it"
        assert isinstance(own, LowRankExperts)
        hooks.append(AddExperts(link, own))
        handles.append(layer.register_forward_hook(hooks[-1], with_kwargs=True))
    return hooks, handles
