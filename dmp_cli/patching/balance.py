"""The paper's prompt balancing (Section 3, after Shazeer et al. 2017): importance and load losses over gate weights.

Letters: B global batch, L prompted blocks, N prompts, D width of the vector the gate reads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .prompts import Gating, default_top_k

_EPSILON = 1e-10
_MIN_STD = 0.01
_DEAD_SHARE = 0.1  # of the uniform weight, as in ``gates``


class Balance(NamedTuple):
    """Both losses, scalars; zero where a gate reads nothing and so cannot be balanced."""

    importance: Tensor
    load: Tensor


class GateUse(NamedTuple):
    """How widely a gate spreads its weights over a batch, scalars; means over samples and blocks."""

    entropy: Tensor  # nats
    effective_prompts: Tensor  # exp(entropy) of each sample and block
    dead_prompts: Tensor  # of a block: those that no sample gives more than a tenth of the uniform weight


@torch.no_grad()
def measure_use(weights: Tensor) -> GateUse:
    """Entropy, effective and dead prompts of gate weights (B, L, N), each row divided by its sum first."""
    shares = weights / weights.sum(-1, keepdim=True)
    entropy = torch.special.entr(shares).sum(-1)  # (B, L)
    dead = (shares.amax(0) <= _DEAD_SHARE / shares.shape[-1]).sum(-1)  # (L,)
    return GateUse(entropy.mean(), entropy.exp().mean(), dead.to(entropy.dtype).mean())


def cv_squared(values: Tensor) -> Tensor:
    """CV^2 = variance / (mean^2 + 1e-10) over the last axis, population variance."""
    return values.var(-1, unbiased=False) / (values.mean(-1).square() + _EPSILON)


def importance_loss(weights: Tensor) -> Tensor:
    """Mean over blocks of CV^2 over prompts of the batch's summed weights (B, L, N) (Shazeer et al., Eq. 6-7)."""
    return cv_squared(weights.sum(0)).mean()


def authors_importance(weights: Tensor) -> Tensor:
    """CV^2 over batch and prompts of the weights (B, L, N) summed over the blocks, as the authors' code computes it.

    It punishes a gate for treating timesteps differently; their load is always 0. For comparison alone.
    """
    return cv_squared(weights.sum(1).flatten())


def load_loss(logits: Tensor, *, std: Tensor, noise: Tensor, top_k: int) -> Tensor:
    """Mean over blocks of CV^2 over prompts of the smooth count of top-k memberships (Shazeer et al., Eq. 8-11).

    ``logits`` (B, L, N); ``std`` and ``noise`` (B, 1, N); ``top_k`` < N. The noise enters this estimate only.
    """
    noisy = torch.addcmul(logits, std, noise)
    best = noisy.topk(top_k + 1, dim=-1).values
    # The k-th largest of the others: for a member of the top k that is the (k+1)-th of all, else the k-th.
    weakest, runner_up = best[..., top_k - 1, None], best[..., top_k, None]
    threshold = torch.where(noisy > runner_up, runner_up, weakest)
    # P(i in top k) = Phi((logit_i - kth_excluding_i) / std_i)
    membership = torch.special.ndtr((logits - threshold) / std)
    return cv_squared(membership.sum(0)).mean()


def load_top_k(num_prompts: int, *, top_k: int | None = None) -> int:
    """How many prompts the load counts as chosen: ``top_k``, by default 75 % of N, and always fewer than N."""
    return min(top_k or default_top_k(num_prompts), num_prompts - 1)


class LoadNoise(nn.Module):
    """W_noise: the scale of the load estimate's noise, softplus(t W_noise) + 0.01. Trained, never part of a patch."""

    def __init__(self, *, gate_width: int, num_prompts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(gate_width, num_prompts))  # (D, N)

    def forward(self, vector: Tensor) -> Tensor:
        """Standard deviations (B, 1, N) for the gate's input (B, D), in float32."""
        with torch.autocast(vector.device.type, enabled=False):
            return F.softplus(vector.to(self.weight.dtype) @ self.weight)[:, None] + _MIN_STD


def measure_balance(
    gating: Gating, *, load_noise: LoadNoise | None, noise: Tensor | None, top_k: int | None = None
) -> Balance:
    """Both losses of one global batch; ``noise`` is (B, N) standard normal. ``load_noise`` None leaves the load out.

    ``top_k`` is how many prompts count as chosen; None: 75 %.
    """
    zero = gating.weights.new_zeros(())
    if gating.logits is None:
        return Balance(zero, zero)
    importance = importance_loss(gating.weights)
    num_prompts = gating.logits.shape[-1]
    if load_noise is None or noise is None or num_prompts < 2:
        return Balance(importance, zero)
    std = load_noise(gating.vector)
    load = load_loss(gating.logits, std=std, noise=noise[:, None], top_k=load_top_k(num_prompts, top_k=top_k))
    return Balance(importance, load)
