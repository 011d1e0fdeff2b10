"""The hooks that bring a patch into a backbone's forward: x_i + sigma(G([t; i])) * p_i in front of block i (Eq. 3).

Hooks are objects, not closures, so that a deep copy or a pickle of a patched backbone has its own patch.

Letters: B batch, T image tokens in a block, N prompts of a block, D width; C, H, W of a feature map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from .interpolate import resize_maps, resize_tokens
from .prompts import Patch, add_mixture


class Link:
    """The state that all hooks of one patched backbone share."""

    def __init__(self, patch: Patch, strength: float) -> None:
        self.patch = patch
        self.strength = strength
        self.enabled = True
        self.offset: Callable[[Tensor], Tensor] | None = None  # noise on the gate's logits, as the authors train
        self.fixed: list[Tensor] | None = None  # each block's weights, if all rows have one known timestep


class AddMixture:
    """Pre-hook on one block: adds the block's mixture to the hidden state in its call (Eq. 3).

    :class:`ReadGate` sets its tensors before each forward of the blocks. With an index into shared tensors instead,
    torch.compile would compile every block anew.
    """

    weights: Tensor  # sigma(G([t; i])), (B, N, 1)
    prompts: Tensor  # p_i, (N, D)

    def __init__(self, link: Link, backbone_type: type[Backbone]) -> None:
        self.link, self.backbone_type = link, backbone_type

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        if not self.link.enabled:
            return None
        hidden = self.backbone_type.take_hidden(args, kwargs)
        weights, prompts = self.fit(hidden)
        hidden = add_mixture(hidden, weights=weights, prompts=prompts, strength=self.link.strength)
        return self.backbone_type.put_hidden(args, kwargs, hidden)

    def fit(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and prompts for ``hidden`` (B, T, D), resized if the image has another number of tokens (T != N)."""
        if hidden.shape[1] == self.prompts.shape[0]:
            return self.weights, self.prompts
        return tuple(resize_tokens(t, count=hidden.shape[1]) for t in (self.weights, self.prompts[None]))  # type: ignore[return-value]

    def __getstate__(self) -> dict[str, Any]:
        # The tensors belong to one forward. They are results of autograd, which can be neither copied nor pickled.
        return {"link": self.link, "backbone_type": self.backbone_type}


class AddMap(AddMixture):
    """Pre-hook on one block of feature maps: weights (B, 1, H, W), prompts (H, W, C), hidden state (B, C, H', W')."""

    def fit(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, 1, H', W') and prompts (1, C, H', W') for ``hidden``, resized if it has another size."""
        height, width = hidden.shape[2:]
        prompts = self.prompts.permute(2, 0, 1)[None]  # (1, C, H, W)
        return resize_maps(self.weights, size=(height, width)), resize_maps(prompts, size=(height, width))


class PrependPrompts(AddMixture):
    """Pre-hook on one block: puts its weighted prompts in front of the image tokens (Table 4d).

    They replace the prompts of the block before, so that the number of tokens stays N + T.
    """

    def __init__(self, link: Link, backbone_type: type[Backbone], *, first: bool) -> None:
        super().__init__(link, backbone_type)
        self.first = first

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        if not self.link.enabled:
            return None
        hidden = self.backbone_type.take_hidden(args, kwargs)  # (B, N + T, D); at the first block (B, T, D)
        tokens = (self.link.strength * self.weights * self.prompts).to(hidden.dtype)  # (B or 1, N, D)
        images = hidden if self.first else hidden[:, tokens.shape[1] :]
        hidden = torch.cat([tokens.expand(len(hidden), -1, -1), images], dim=1)
        return self.backbone_type.put_hidden(args, kwargs, hidden)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "first": self.first}


class DropPrompts:
    """Forward hook on the last prompted block: drops the prompts from its output, (B, N + T, D) -> (B, T, D)."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        return output[:, self.link.patch.num_prompts :].contiguous() if self.link.enabled else None


class ReadGate:
    """Forward hook on the module that the gate reads: computes the weights of every block from its output t (B, D)."""

    def __init__(self, link: Link, mixtures: list[AddMixture]) -> None:
        self.link, self.mixtures = link, mixtures

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if not (self.link.enabled and self.mixtures):
            return
        weights = self.link.fixed
        if weights is None:
            offset = self.link.offset and self.link.offset(output)
            weights = self.link.patch.spread(self.link.patch(output, offset=offset).weights)
        for mixture, own_weights, prompts in zip(self.mixtures, weights, self.link.patch.prompts, strict=True):
            mixture.weights, mixture.prompts = own_weights, prompts
