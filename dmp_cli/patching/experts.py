"""Low-rank experts: the gate weighs updates of layers as it weighs prompts (ours; the paper has vectors).

With E experts of rank r and the gate's weights w = sigma(G([t; i])), a layer of block i with weights W (out, in)
computes

    y = W x + sum_e w_e B_e A_e x        A_e: (r, in), B_e: (out, r)

TimeStep Master (2025) has such experts for ranges of timesteps, without this gate. One expert and ``--gate none`` are a
LoRA of rank r (Hu et al. 2021) whose alpha equals its rank. Letters: B batch, E experts of a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ExpertLayer, PatchConfig
from ..runtime import randomness

_HALF = (torch.float16, torch.bfloat16)


class LowRankExperts(nn.Module):
    """The experts of one layer. Each B_e starts at zero, so that a new patch changes nothing."""

    def __init__(self, layer: ExpertLayer, *, count: int, rank: int, seed: int, place: int) -> None:
        """``place`` is the layer's place among all layers of the patch; with ``seed`` it fixes A."""
        super().__init__()
        down = torch.empty(count, rank, layer.inputs)
        bound = 1 / math.sqrt(layer.inputs)  # as peft and nn.Linear draw
        down.uniform_(-bound, bound, generator=randomness.torch_generator("experts", seed=seed, index=place))
        self.down = nn.Parameter(down)  # A: (E, r, in)
        self.up = nn.Parameter(torch.zeros(layer.outputs, count, rank))  # B: (out, E, r)

    def forward(self, given: Tensor, weights: Tensor) -> Tensor:
        """sum_e w_e B_e A_e x for ``given`` x (B, ..., in) and ``weights`` w (B or 1, E): (B, ..., out).

        All experts are one product: their A stand one below the other, and w scales what they give.
        """
        if not torch.is_autocast_enabled(given.device.type):
            given = given.to(torch.promote_types(given.dtype, self.down.dtype))
        inner = F.linear(given, self.down.flatten(0, 1))  # (B, ..., E r)
        scale = weights.repeat_interleave(self.down.shape[1], dim=-1)  # (B, E r)
        scale = scale.view(len(scale), *[1] * (inner.dim() - 2), -1)
        return F.linear(inner * scale, self.up.flatten(1))

    def add(self, output: Tensor, given: Tensor, *, weights: Tensor, strength: float) -> Tensor:
        """A layer's ``output`` (B, ..., out) for ``given`` with the update; a zero update changes no value."""
        update = self(given, weights)
        if output.dtype in _HALF:
            return torch.add(output.float(), update, alpha=strength).to(output.dtype)
        return torch.add(output, update, alpha=strength)


def grow_experts(config: PatchConfig, layers: Sequence[Sequence[ExpertLayer]], *, seed: int) -> nn.ModuleList:
    """The experts of each block's ``layers``, in their order; nothing for a patch without experts."""
    places = iter(range(sum(map(len, layers))))
    count, rank = config.experts_per_block, config.rank
    return nn.ModuleList(
        nn.ModuleList(LowRankExperts(one, count=count, rank=rank, seed=seed, place=next(places)) for one in block)
        for block in layers
    )
