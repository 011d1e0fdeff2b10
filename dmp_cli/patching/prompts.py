"""The paper's method: a pool of prompts, a gate that reads the timestep, and their mixture. Knows no backbone.

Letters: B batch, L prompted blocks, N prompts of a block (= its tokens), D width; on feature maps H x W prompts of C
channels a block, and N those of the largest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import PatchConfig, PatchRecord
from ..runtime import randomness
from .interpolate import pool_weights

_HALF = (torch.float16, torch.bfloat16)
_TOP_SHARE = 0.75  # of the prompts


class Gating(NamedTuple):
    """What a gate says for a batch: the weights, and what the balance losses need of how they came about."""

    weights: Tensor  # (B, L, N), or (1, L, N) where the gate reads nothing
    logits: Tensor | None  # (B, L, N); None where the gate reads nothing
    vector: Tensor  # (B, D), float32


def add_mixture(hidden: Tensor, *, weights: Tensor, prompts: Tensor, strength: float = 1.0) -> Tensor:
    """x_i + strength * sigma(G([t; i])) * p_i (Eq. 3), added in float32 whatever ``hidden`` (B, N, D) is kept in.

    ``weights`` is (B, N, 1) or (1, N, 1), ``prompts`` (N, D); for maps ``hidden`` is (B, C, H, W), ``weights``
    (B, 1, H, W) and ``prompts`` (1, C, H, W). Zero prompts return the value of ``hidden`` unchanged.
    """
    if hidden.dtype in _HALF:
        return torch.addcmul(hidden.float(), weights, prompts, value=strength).to(hidden.dtype)
    return torch.addcmul(hidden, weights, prompts, value=strength)


def default_top_k(num_prompts: int) -> int:
    """75 % of the prompts (192 of 256), at least one."""
    return max(1, math.floor(_TOP_SHARE * num_prompts))


def select_hard(weights: Tensor, *, top_k: int) -> Tensor:
    """1 for the ``top_k`` largest of the last axis, 0 for the others (Table 4b); gradients pass to ``weights``."""
    chosen = torch.zeros_like(weights).scatter_(-1, weights.topk(top_k, dim=-1).indices, 1.0)
    # straight-through: the difference is exactly zero, its gradient is one
    return chosen + (weights - weights.detach())


class LinearGate(nn.Module):
    """G of Eq. 3: one linear layer shared by all blocks, R^(D+1) -> R^N; the last input column is the block's index."""

    def __init__(self, *, gate_width: int, num_prompts: int, num_blocks: int, reads_depth: bool, seed: int) -> None:
        super().__init__()
        self.num_blocks, self.reads_depth = num_blocks, reads_depth
        inputs = gate_width + int(reads_depth)
        weight, bias = _uniform_linear(inputs, num_prompts, seed=seed)
        self.weight = nn.Parameter(weight)  # (N, D + 1), or (N, D) where the depth is not read
        self.bias = nn.Parameter(bias)  # (N,)
        self.register_buffer("depths", torch.arange(num_blocks, dtype=torch.float32)[:, None], persistent=False)
        self.depths: Tensor  # (L, 1)

    def forward(self, vector: Tensor) -> Tensor:
        """Logits of all blocks at once, (B, L, N), or (B, 1, N) where they are the same for every block."""
        if not self.reads_depth:
            return F.linear(vector, self.weight, self.bias)[:, None]
        # G([t; i]) = W_t t + b + i w: one product for all blocks, then a term of rank one in the depth
        logits = F.linear(vector, self.weight[:, :-1], self.bias)[:, None]  # (B, 1, N)
        return torch.addcmul(logits, self.depths, self.weight[:, -1])  # (B, L, N)


class AttentionGate(nn.Module):
    """Scores of prompts as queries against the timestep as key: s_n = (W_q p_n) . (W_k [t; i] + b) / sqrt(D).

    Ours where the paper (Table 4a) is silent: with a single key, a softmax over keys would be 1 whatever the prompts
    are, so the softmax runs over the prompts, and weighs them as the linear gate's does.
    """

    def __init__(self, *, gate_width: int, width: int, num_blocks: int, reads_depth: bool, seed: int) -> None:
        super().__init__()
        self.reads_depth = reads_depth
        key, bias = _uniform_linear(gate_width + int(reads_depth), width, seed=seed)
        query, _ = _uniform_linear(width, width, seed=seed, index=1)
        self.query = nn.Parameter(query)  # W_q: (D, D)
        self.key = nn.Parameter(key)  # W_k: (D, D_t + 1), or (D, D_t) where the depth is not read
        self.bias = nn.Parameter(bias)  # (D,)
        self.register_buffer("depths", torch.arange(num_blocks, dtype=torch.float32)[:, None], persistent=False)
        self.depths: Tensor  # (L, 1)

    def forward(self, vector: Tensor, prompts: Tensor) -> Tensor:
        """Logits (B, L, N) for the gate's input (B, D_t) and the prompts (L, N, D) of all blocks."""
        weight = self.key[:, :-1] if self.reads_depth else self.key
        keys = F.linear(vector, weight, self.bias)[:, None]  # (B, 1, D)
        if self.reads_depth:
            keys = torch.addcmul(keys, self.depths.to(keys.dtype), self.key[:, -1])  # (B, L, D)
        # (W_q p) . k = p . (W_q^T k): one vector a block and image instead of one a prompt
        folded = (keys @ self.query).expand(-1, len(prompts), -1) / math.sqrt(prompts.shape[-1])
        return torch.einsum("bld,lnd->bln", folded, prompts)


class Patch(nn.Module):
    """Prompts and gate: the learnt thing (paper, Section 3). Its parameters are exactly what training changes.

    Args:
        config: which variant.
        hidden_shapes: (N, D) of each prompted block's prompts, in order; (H, W, C) for a backbone of feature maps.
        gate_width: length D of the vector the gate reads.
        seed: fixes what starts at random: the gate, and the prompts under ``init="random"``. Prompts otherwise start at
            zero, so that a fresh patch changes nothing.
    """

    def __init__(
        self, config: PatchConfig, *, hidden_shapes: Sequence[Sequence[int]], gate_width: int, seed: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.hidden_shapes = [tuple(shape) for shape in hidden_shapes]
        self.gate_width = gate_width
        self.record: PatchRecord | None = None  # set by whoever reads it from a file or knows the backbone
        starts = [_initial_prompts(config, shape, seed=seed, block=i) for i, shape in enumerate(self.hidden_shapes)]
        self.prompts = nn.ParameterList([nn.Parameter(start) for start in starts])
        self.gate = self._build_gate(seed)

    def _build_gate(self, seed: int) -> LinearGate | AttentionGate | None:
        num_blocks = len(self.hidden_shapes)
        if self.config.gate == "attention" and num_blocks:
            return AttentionGate(
                gate_width=self.gate_width,
                width=self.hidden_shapes[0][-1],
                num_blocks=num_blocks,
                reads_depth=self.config.scope == "distinct",
                seed=seed,
            )
        if self.config.gate == "linear" and num_blocks:
            return LinearGate(
                gate_width=self.gate_width,
                num_prompts=self.num_prompts,
                num_blocks=num_blocks,
                reads_depth=self.config.scope == "distinct",
                seed=seed,
            )
        # Without a gate every prompt weighs 1 (Eq. 2), or 1/N: the mean weight that a softmax gives (control).
        weight = self.config.gate_scale / max(1, self.num_prompts) if self.config.gate == "constant" else 1.0
        self.register_buffer("constant", torch.full((1, num_blocks, self.num_prompts), weight), persistent=False)
        self.constant: Tensor
        return None

    @property
    def num_prompts(self) -> int:
        """N: prompts of a block, of the largest one on feature maps; 0 when no block is prompted."""
        if self.grid is not None:
            return self.grid[0] * self.grid[1]
        return self.hidden_shapes[0][0] if self.hidden_shapes else 0

    @property
    def grid(self) -> tuple[int, int] | None:
        """(H, W) of the map that one gate gives for all blocks; None where prompts are tokens."""
        sides = [(shape[0], shape[1]) for shape in self.hidden_shapes if len(shape) == 3]
        return max(sides) if sides else None

    @property
    def top_k(self) -> int:
        """How many prompts count as chosen: those that hard selection keeps, by default 75 % (192 of 256)."""
        return self.config.top_k or default_top_k(self.num_prompts)

    def num_parameters(self) -> int:
        """L*N*D prompt values plus the gate's (D+1)*N + N (paper, Table 1)."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, vector: Tensor, *, offset: Tensor | None = None) -> Gating:
        """Gate weights of all blocks for ``vector`` (B, D), in float32 also inside autocast.

        ``offset`` (B, 1, N) is added to the logits before the softmax: the noise of the authors' training.
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
            weights = logits.softmax(-1)  # sigma(G([t; i])), over the prompts
            if self.config.selection == "hard":
                weights = select_hard(weights, top_k=self.top_k)
            elif self.config.gate_scale != 1:
                weights = weights * self.config.gate_scale
            return Gating(weights.expand(size), logits.expand(size), vector)

    def spread(self, weights: Tensor) -> list[Tensor]:
        """Gate weights (B, L, N) -> each block's own, to multiply its prompts: (B, N, 1), or (B, 1, H, W) on maps.

        One map serves all blocks, summed over the places that fall together in a block's smaller grid, so that every
        block's weights still sum to one. Without a gate every weight is 1 on every grid.
        """
        if self.grid is None:
            return list(weights.unsqueeze(-1).unbind(1))
        sizes = [(shape[0], shape[1]) for shape in self.hidden_shapes]
        if self.config.gate == "none":
            return [weights.new_ones(1, 1, *size) for size in sizes]
        own = weights.unbind(1)
        return [pool_weights(w, grid=self.grid, size=size) for w, size in zip(own, sizes, strict=True)]


def _initial_prompts(config: PatchConfig, shape: Sequence[int], *, seed: int, block: int) -> Tensor:
    """Zeros (paper, "Zero-initialization"), or Xavier uniform: +-sqrt(6 / (N + D)), with N = H * W on maps."""
    if config.init == "zero":
        return torch.zeros(*shape)
    bound = math.sqrt(6 / (math.prod(shape[:-1]) + shape[-1]))
    draws = randomness.generator("prompts", seed=seed, index=block).uniform(-bound, bound, tuple(shape))
    return torch.from_numpy(draws).float()


def _uniform_linear(inputs: int, outputs: int, *, seed: int, index: int = 0) -> tuple[Tensor, Tensor]:
    """Weight and bias as ``nn.Linear`` starts them, uniform in +-1/sqrt(inputs), from their own seed."""
    draws = randomness.generator("gate", seed=seed, index=index).uniform(-1, 1, (outputs, inputs + 1)) / inputs**0.5
    values = torch.from_numpy(draws).float()
    return values[:, :-1].contiguous(), values[:, -1].contiguous()
