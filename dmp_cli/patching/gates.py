"""The gate G of Eq. 3: it maps the timestep embedding t and a block's index i to one weight for each prompt.

Letters: B batch, L prompted blocks, N prompts of a block, D width of the vector t that the gate reads, D_p width of a
prompt (for the attention gate, where it may differ from D).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime import randomness

_TOP_SHARE = 0.75  # of the prompts, chosen by default


class Gating(NamedTuple):
    """The gate's result for a batch: the weights, and what the balance losses need beside them.

    For low-rank experts N is their number. A gate of both gives the weights of the prompts, then those of the experts.
    """

    weights: Tensor  # (B, L, N): sigma(G([t; i])) in Eq. 3; (1, L, N) without a gate
    logits: Tensor | None  # (B, L, N): G([t; i]); None without a gate
    vector: Tensor  # (B, D): t, in float32 or float64


class BlockWeights(NamedTuple):
    """Gate weights as the hooks take them: for each block, of its prompts and of its low-rank experts."""

    prompts: list[Tensor]  # (B, N, 1), or (B, 1, H, W) on feature maps; empty without prompts
    experts: list[Tensor]  # (B, E) for E experts; empty without low-rank experts

    def of_rows(self, rows: Tensor | None) -> BlockWeights:
        """The weights times the factor of each row, (B,)."""
        if rows is None:
            return self
        return BlockWeights(*([own * rows.view(-1, *[1] * (own.dim() - 1)) for own in part] for part in self))


class LinearGate(nn.Module):
    """G as the paper implements it: one linear layer R^(D+1) -> R^N, shared by all blocks.

    The last input is the block's index i as a number. Without ``reads_depth`` (scope ``uniform``) G reads t alone.
    """

    def __init__(self, *, gate_width: int, num_prompts: int, num_blocks: int, reads_depth: bool, seed: int) -> None:
        super().__init__()
        self.num_blocks, self.reads_depth = num_blocks, reads_depth
        inputs = gate_width + int(reads_depth)
        weight, bias = _uniform_linear(inputs, num_prompts, seed=seed)
        self.weight = nn.Parameter(weight)  # (N, D + 1), or (N, D) if i is not read
        self.bias = nn.Parameter(bias)  # (N,)
        self.register_buffer("depths", torch.arange(num_blocks, dtype=torch.float32)[:, None], persistent=False)
        self.depths: Tensor  # (L, 1)

    def forward(self, vector: Tensor) -> Tensor:
        """Logits G([t; i]) of all blocks at once, (B, L, N); (B, 1, N) if they are the same for every block."""
        if not self.reads_depth:
            return F.linear(vector, self.weight, self.bias)[:, None]
        # G([t; i]) = W_t t + b + i w: one matrix product for all blocks, then a rank-one term in the depth
        logits = F.linear(vector, self.weight[:, :-1], self.bias)[:, None]  # (B, 1, N)
        return torch.addcmul(logits, self.depths, self.weight[:, -1])  # (B, L, N)


class AttentionGate(nn.Module):
    """The attention gate of Table 4a: prompts are queries, the timestep is the key.

    Its logits are s_n = (W_q p_n) . (W_k [t; i] + b) / sqrt(D_p). The paper gives no formula; this one is ours. With
    the timestep as the only key, a softmax over keys would always be 1. The softmax therefore runs over the prompts, as
    for the linear gate.
    """

    def __init__(self, *, gate_width: int, width: int, num_blocks: int, reads_depth: bool, seed: int) -> None:
        super().__init__()
        self.reads_depth = reads_depth
        key, bias = _uniform_linear(gate_width + int(reads_depth), width, seed=seed)
        query, _ = _uniform_linear(width, width, seed=seed, index=1)
        self.query = nn.Parameter(query)  # W_q: (D_p, D_p)
        self.key = nn.Parameter(key)  # W_k: (D_p, D + 1), or (D_p, D) if i is not read
        self.bias = nn.Parameter(bias)  # b: (D_p,)
        self.register_buffer("depths", torch.arange(num_blocks, dtype=torch.float32)[:, None], persistent=False)
        self.depths: Tensor  # (L, 1)

    def forward(self, vector: Tensor, prompts: Tensor) -> Tensor:
        """Logits (B, L, N) for the gate's input t (B, D) and the prompts (L, N, D_p) of all blocks."""
        weight = self.key[:, :-1] if self.reads_depth else self.key
        keys = F.linear(vector, weight, self.bias)[:, None]  # (B, 1, D_p)
        if self.reads_depth:
            keys = torch.addcmul(keys, self.depths.to(keys.dtype), self.key[:, -1])  # (B, L, D_p)
        # (W_q p) . k = p . (W_q^T k): W_q is applied to one key per image and block, not to N prompts
        folded = (keys @ self.query).expand(-1, len(prompts), -1) / math.sqrt(prompts.shape[-1])
        return torch.einsum("bld,lnd->bln", folded, prompts)


def default_top_k(num_prompts: int) -> int:
    """How many prompts are chosen by default: 75 % of N (192 of 256), at least one."""
    return max(1, math.floor(_TOP_SHARE * num_prompts))


def select_hard(weights: Tensor, *, top_k: int) -> Tensor:
    """Hard selection (Table 4b): 1 for the ``top_k`` largest weights (..., N), 0 for the others.

    The gradient passes through to ``weights`` as if nothing were selected (straight-through; ours).
    """
    chosen = torch.zeros_like(weights).scatter_(-1, weights.topk(top_k, dim=-1).indices, 1.0)
    # The added difference has value 0 and gradient 1.
    return chosen + (weights - weights.detach())


def _uniform_linear(inputs: int, outputs: int, *, seed: int, index: int = 0) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear layer, drawn as ``nn.Linear`` does: uniform in +-1/sqrt(inputs)."""
    draws = randomness.generator("gate", seed=seed, index=index).uniform(-1, 1, (outputs, inputs + 1)) / inputs**0.5
    values = torch.from_numpy(draws).float()
    return values[:, :-1].contiguous(), values[:, -1].contiguous()
