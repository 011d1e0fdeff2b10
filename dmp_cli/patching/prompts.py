"""The paper's method: a pool of prompts p_i for each block, and their mixture. It knows no backbone.

    P = {p_i in R^(N x D) | i = 0..L-1}                        (Eq. 1: the pool of prompts)
    x_{i+1} = Block_i(p_i + x_i)                               (Eq. 2: prompt tuning)
    x_{i+1} = Block_i(sigma(G([t; i])) * p_i + x_i)            (Eq. 3: the mixture of prompts)

x_i is the hidden state in front of block i, t the timestep embedding, G the gate (module ``gates``), sigma the softmax
over the N prompts. The paper writes i as a superscript. The same gate can weigh low-rank experts, beside the
prompts or instead of them (module ``experts``).

Letters: B batch, L prompted blocks, N prompts of a block (one for each token), D width. On feature maps a block has
H x W prompts of C channels, and N is H * W of the largest block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import ExpertLayer, PatchConfig, PatchRecord
from ..runtime import randomness
from .experts import grow_experts
from .gates import AttentionGate, BlockWeights, Gating, LinearGate, default_top_k, select_hard
from .interpolate import pool_weights
from .on_the_hub import OnTheHub
from .pretrained import Pretrained
from .shown import ShownPatch

_HALF = (torch.float16, torch.bfloat16)


def add_mixture(hidden: Tensor, *, weights: Tensor, prompts: Tensor, strength: float = 1.0) -> Tensor:
    """Add a block's mixture to its input: x_i + strength * sigma(G([t; i])) * p_i (Eq. 3).

    On tokens ``hidden`` x_i is (B, N, D), ``weights`` (B, N, 1) or (1, N, 1), ``prompts`` p_i (N, D). On feature maps
    ``hidden`` is (B, C, H, W), ``weights`` (B, 1, H, W), ``prompts`` (1, C, H, W). The sum is computed in float32 even
    if ``hidden`` is in half precision. Zero prompts leave the values of ``hidden`` as they are.
    """
    if hidden.dtype in _HALF:
        return torch.addcmul(hidden.float(), weights, prompts, value=strength).to(hidden.dtype)
    return torch.addcmul(hidden, weights, prompts, value=strength)


class Patch(ShownPatch, Pretrained, OnTheHub, nn.Module):
    """The prompts p_i, or low-rank experts, and the gate G: what is learnt, which are all of its parameters.

    Args:
        config: the variant of the method (Table 4).
        hidden_shapes: shape of each prompted block's prompts, in order: (N, D), or (H, W, C) on feature maps.
        expert_layers: the layers of each of these blocks that low-rank experts update; none for prompts alone.
        gate_width: length D of the vector t that the gate reads.
        seed: seed of the gate's first weights, and of the prompts under ``init="random"``. By default the prompts start
            at zero (paper, "Zero-initialization"), so that a new patch changes nothing.
    """

    def __init__(
        self,
        config: PatchConfig,
        *,
        hidden_shapes: Sequence[Sequence[int]],
        gate_width: int,
        expert_layers: Sequence[Sequence[ExpertLayer]] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.hidden_shapes = [tuple(shape) for shape in hidden_shapes]
        self.gate_width = gate_width
        self.record: PatchRecord | None = None  # set when the patch is read from a file or made for a recorded backbone
        prompted = self.hidden_shapes if config.has_prompts else []
        starts = [_initial_prompts(config, shape, seed=seed, block=i) for i, shape in enumerate(prompted)]
        self.prompts = nn.ParameterList([nn.Parameter(start) for start in starts])  # P of Eq. 1
        self.expert_layers = [list(layers) for layers in expert_layers]
        self.experts = grow_experts(config, self.expert_layers, seed=seed)
        self.gate = self._build_gate(seed)

    def _build_gate(self, seed: int) -> LinearGate | AttentionGate | None:
        """The gate that ``config`` asks for; None, and the buffer ``constant``, for a variant without a gate."""
        num_blocks, reads_depth = len(self.hidden_shapes), self.config.scope == "distinct"
        if self.config.gate == "attention" and num_blocks:
            return AttentionGate(
                gate_width=self.gate_width,
                width=self.hidden_shapes[0][-1],
                num_blocks=num_blocks,
                reads_depth=reads_depth,
                seed=seed,
            )
        if self.config.gate == "linear" and num_blocks:
            return LinearGate(
                gate_width=self.gate_width,
                num_prompts=self.gate_outputs,
                num_blocks=num_blocks,
                reads_depth=reads_depth,
                seed=seed,
            )
        # Without a gate every weight is 1 (Eq. 2), or 1/N, which is the mean weight under a softmax (a control, ours).
        weights = torch.ones(1, num_blocks, self.gate_outputs)
        if self.config.gate == "constant":
            for part in self.parts:
                weights[..., part] = self.config.gate_scale / max(1, part.stop - part.start)
        self.register_buffer("constant", weights, persistent=False)
        self.constant: Tensor
        return None

    @property
    def device(self) -> torch.device:
        """Where its parameters are; the CPU for a patch without any."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @property
    def num_prompts(self) -> int:
        """N: the number of prompts of a block, on feature maps of the largest one; 0 if no block has prompts."""
        if not self.config.has_prompts:
            return 0
        if self.grid is not None:
            return self.grid[0] * self.grid[1]
        return self.hidden_shapes[0][0] if self.hidden_shapes else 0

    @property
    def grid(self) -> tuple[int, int] | None:
        """On feature maps, (H, W) of the prompts' map of weights that the gate gives for all blocks; None on tokens."""
        if not self.config.has_prompts:
            return None
        sides = [(shape[0], shape[1]) for shape in self.hidden_shapes if len(shape) == 3]
        return max(sides) if sides else None

    @property
    def num_experts(self) -> int:
        """E: how many low-rank experts a block has; 0 if no block has any."""
        return self.config.experts_per_block if self.hidden_shapes else 0

    @property
    def gate_outputs(self) -> int:
        """How many weights the gate gives a block: N, E, or N + E."""
        return self.num_prompts + self.num_experts

    @property
    def parts(self) -> list[slice]:
        """The gate's outputs that share a softmax: those of the prompts, then those of the low-rank experts."""
        own = [slice(0, self.num_prompts), slice(self.num_prompts, self.gate_outputs)]
        return [part for part in own if part.stop > part.start]

    def top_k(self, part: slice) -> int:
        """How many of a part count as chosen: those that hard selection keeps, by default 75 % (192 of 256)."""
        return self.config.top_k or default_top_k(part.stop - part.start)

    def num_parameters(self) -> int:
        """Number of parameters: L*N*D of the prompts plus (D+1)*N + N of the linear gate (paper, Table 1).

        Low-rank experts have E*r*(in + out) for each layer, and E outputs of the gate.
        """
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, vector: Tensor, *, offset: Tensor | None = None) -> Gating:
        """Gate weights sigma(G([t; i])) of all blocks for ``vector`` t (B, D).

        They are computed in float32 inside autocast too: in bfloat16 a softmax over 256 prompts has only about a dozen
        distinct values. ``offset`` (B, 1, N) is added to the logits: the noise of the authors' training.
        """
        with torch.autocast(vector.device.type, enabled=False):
            vector = vector.float() if vector.dtype in _HALF else vector
            if self.gate is None:
                return Gating(self.constant, None, vector)
            if isinstance(self.gate, AttentionGate):
                logits = self.gate(vector, torch.stack(list(self.prompts)))  # (B, L, N)
            else:
                logits = self.gate(vector)  # (B, L, N) or (B, 1, N)
            logits = logits if offset is None else logits + offset
            size = (-1, len(self.hidden_shapes), -1)
            parts = [self._weigh(logits[..., part], part) for part in self.parts]
            weights = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
            return Gating(weights.expand(size), logits.expand(size), vector)

    def _weigh(self, logits: Tensor, part: slice) -> Tensor:
        """The weights of the prompts, or of the experts, from their logits (..., N)."""
        weights = logits.softmax(-1)  # sigma(G([t; i])), over the N prompts
        if self.config.selection == "hard":
            return select_hard(weights, top_k=self.top_k(part))
        return weights * self.config.gate_scale if self.config.gate_scale != 1 else weights

    def for_blocks(self, weights: Tensor) -> BlockWeights:
        """Gate weights (B, L, N + E) as the blocks take them."""
        prompts = self.spread(weights[..., : self.num_prompts]) if self.num_prompts else []
        experts = list(weights[..., self.num_prompts :].unbind(1)) if self.num_experts else []
        return BlockWeights(prompts, experts)

    def spread(self, weights: Tensor) -> list[Tensor]:
        """Turn gate weights (B, L, N) into each block's factor for its prompts: (B, N, 1), or (B, 1, H, W) on maps.

        On feature maps a block with a smaller grid gets the sums of the weights that fall on each of its places, so
        that the weights of every block still sum to one. Without a gate every weight is 1 on every grid (Eq. 2).
        """
        if self.grid is None:
            return list(weights.unsqueeze(-1).unbind(1))
        sizes = [(shape[0], shape[1]) for shape in self.hidden_shapes]
        if self.config.gate == "none":
            return [weights.new_ones(1, 1, *size) for size in sizes]
        own = weights.unbind(1)
        return [pool_weights(w, grid=self.grid, size=size) for w, size in zip(own, sizes, strict=True)]


def _initial_prompts(config: PatchConfig, shape: Sequence[int], *, seed: int, block: int) -> Tensor:
    """First values of a block's prompts: zero (paper), or Xavier uniform, +-sqrt(6 / (N + D)); N = H * W on maps."""
    if config.init == "zero":
        return torch.zeros(*shape)
    bound = math.sqrt(6 / (math.prod(shape[:-1]) + shape[-1]))
    draws = randomness.generator("prompts", seed=seed, index=block).uniform(-bound, bound, tuple(shape))
    return torch.from_numpy(draws).float()
