"""The hooks through which a patch gets into a backbone's forward.

They are objects, not closures, so that a deep copy or a pickle of a patched backbone carries its own patch.

Letters: B batch, T image tokens of a block, N prompts of a block, D width; C, H, W of a feature map.
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
    """What the hooks of one patched backbone share."""

    def __init__(self, patch: Patch, strength: float) -> None:
        self.patch = patch
        self.strength = strength
        self.enabled = True
        self.offset: Callable[[Tensor], Tensor] | None = None  # noise on the gate's logits, of one training forward
        self.fixed: list[Tensor] | None = None  # each block's weights, where the caller knows the timestep of all rows


class AddMixture:
    """Pre-hook on one block: adds its mixture to the hidden state in the block's call.

    It is handed its own tensors; an index into shared ones would be compiled anew for every block.
    """

    weights: Tensor  # (B, N, 1)
    prompts: Tensor  # (N, D)

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
        """Weights and prompts for ``hidden`` (B, T, D), resized where an image of another size is made."""
        if hidden.shape[1] == self.prompts.shape[0]:
            return self.weights, self.prompts
        return tuple(resize_tokens(t, count=hidden.shape[1]) for t in (self.weights, self.prompts[None]))  # type: ignore[return-value]

    def __getstate__(self) -> dict[str, Any]:
        # The tensors belong to one forward; results of autograd can be neither copied nor moved to another process.
        return {"link": self.link, "backbone_type": self.backbone_type}


class AddMap(AddMixture):
    """Pre-hook on one block of feature maps: ``weights`` (B, 1, H, W), ``prompts`` (H, W, C), hidden (B, C, H', W')."""

    def fit(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        height, width = hidden.shape[2:]
        prompts = self.prompts.permute(2, 0, 1)[None]  # (1, C, H, W)
        return resize_maps(self.weights, size=(height, width)), resize_maps(prompts, size=(height, width))


class PrependPrompts(AddMixture):
    """Pre-hook on one block: its weighted prompts as tokens in front (Table 4d), in place of the block's before it."""

    def __init__(self, link: Link, backbone_type: type[Backbone], *, first: bool) -> None:
        super().__init__(link, backbone_type)
        self.first = first

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        if not self.link.enabled:
            return None
        hidden = self.backbone_type.take_hidden(args, kwargs)  # (B, N + T, D), or (B, T, D) at the first block
        tokens = (self.link.strength * self.weights * self.prompts).to(hidden.dtype)  # (B or 1, N, D)
        images = hidden if self.first else hidden[:, tokens.shape[1] :]
        hidden = torch.cat([tokens.expand(len(hidden), -1, -1), images], dim=1)
        return self.backbone_type.put_hidden(args, kwargs, hidden)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "first": self.first}


class DropPrompts:
    """Forward hook on the last prompted block: its output without the tokens in front."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        return output[:, self.link.patch.num_prompts :].contiguous() if self.link.enabled else None


class ReadGate:
    """Forward hook on the timestep embedder: its output (B, D) -> the gate weights of every block."""

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
