"""The prompt balancing loss of the paper (Training): importance and load losses, after Shazeer et al. 2017.

Both losses keep the gate from using few prompts only. Importance balances the sums of their weights sigma(G([t; i])),
load balances how often each is among the top k.
Letters: B global batch, L prompted blocks, N prompts of a block, D width of the vector t that the gate reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import DEAD_SHARE
from .gates import Gating, default_top_k

_EPSILON = 1e-10
_MIN_STD = 0.01


class Balance(NamedTuple):
    """Both losses, scalars. They are zero without a gate, since nothing can be balanced then."""

    importance: Tensor
    load: Tensor


class GateUse(NamedTuple):
    """How widely a gate spreads its weights over the prompts: three scalars, means over samples and blocks."""

    entropy: Tensor  # in nats
    effective_prompts: Tensor  # exp(entropy), taken for each sample and block
    dead_prompts: Tensor  # per block: the prompts that no sample gives more than a tenth of the uniform weight 1/N


@torch.no_grad()
def measure_use(weights: Tensor) -> GateUse:
    """Measure entropy, effective and dead prompts of gate weights (B, L, N). Each row is first divided by its sum."""
    shares = weights / weights.sum(-1, keepdim=True)
    entropy = torch.special.entr(shares).sum(-1)  # (B, L)
    dead = (shares.amax(0) <= DEAD_SHARE / shares.shape[-1]).sum(-1)  # (L,)
    return GateUse(entropy.mean(), entropy.exp().mean(), dead.to(entropy.dtype).mean())


def cv_squared(values: Tensor) -> Tensor:
    """Squared coefficient of variation over the last axis: CV^2 = variance / (mean^2 + 1e-10), population variance."""
    return values.var(-1, unbiased=False) / (values.mean(-1).square() + _EPSILON)


def importance_loss(weights: Tensor) -> Tensor:
    """Importance loss of weights (B, L, N) (Shazeer et al., Eq. 6-7).

    It is CV^2 over the prompts of the weights summed over the batch, then the mean over the blocks.
    """
    # L_importance = mean_i CV^2_n(sum_b w_bin)
    return cv_squared(weights.sum(0)).mean()


def authors_importance(weights: Tensor) -> Tensor:
    """Importance loss of weights (B, L, N) as the authors' code computes it, for comparison only.

    It sums the weights over the blocks and takes CV^2 over batch and prompts. It therefore penalises a gate that treats
    timesteps differently. The load loss of that code is always 0.
    """
    return cv_squared(weights.sum(1).flatten())


def load_loss(logits: Tensor, *, std: Tensor, noise: Tensor, top_k: int) -> Tensor:
    """Load loss of ``logits`` G([t; i]) (B, L, N) (Shazeer et al., Eq. 8-11).

    A prompt's load is the smooth count of the samples that have it among their top k. The loss is CV^2 of the load over
    the prompts, then the mean over the blocks. ``std`` and the standard normal ``noise`` are (B, 1, N), ``top_k`` < N.
    The noise enters this estimate only, never the mixture.
    """
    noisy = torch.addcmul(logits, std, noise)
    best = noisy.topk(top_k + 1, dim=-1).values
    # Each prompt's threshold is the k-th largest of the others: the (k+1)-th of all for a member of the top k, else
    # the k-th.
    kth, next_largest = best[..., top_k - 1, None], best[..., top_k, None]
    threshold = torch.where(noisy > next_largest, next_largest, kth)
    # P(i in top k) = Phi((logit_i - kth_excluding_i) / std_i)
    membership = torch.special.ndtr((logits - threshold) / std)
    # L_load = mean_i CV^2_n(sum_b P_bin)
    return cv_squared(membership.sum(0)).mean()


def load_top_k(num_prompts: int, *, top_k: int | None = None) -> int:
    """The k of the load loss: ``top_k``, by default 75 % of N, and always less than N."""
    return min(top_k or default_top_k(num_prompts), num_prompts - 1)


class LoadNoise(nn.Module):
    """W_noise: gives the scale of the noise in the load estimate, softplus(t W_noise) + 0.01.

    It is trained with the patch but is not part of it.
    """

    def __init__(self, *, gate_width: int, num_prompts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(gate_width, num_prompts))  # (D, N)

    def forward(self, vector: Tensor) -> Tensor:
        """Standard deviations (B, 1, N) of the noise for the gate's input t (B, D), in float32."""
        with torch.autocast(vector.device.type, enabled=False):
            return F.softplus(vector.to(self.weight.dtype) @ self.weight)[:, None] + _MIN_STD


def measure_balance(
    gating: Gating,
    *,
    load_noise: LoadNoise | None,
    noise: Tensor | None,
    top_k: int | None = None,
    parts: Sequence[slice] = (slice(None),),
) -> Balance:
    """Compute both balance losses of one global batch.

    Args:
        load_noise: W_noise; None leaves the load loss out.
        noise: standard normal numbers (B, N); None leaves the load loss out.
        top_k: how many prompts count as chosen; None takes 75 % of N.
        parts: the weights that share a softmax, as :attr:`Patch.parts`; the losses of the parts are added up.
    """
    zero = gating.weights.new_zeros(())
    if gating.logits is None:
        return Balance(zero, zero)
    std = None if load_noise is None or noise is None else load_noise(gating.vector)
    importance, load = [], []
    for part in parts:
        logits = gating.logits[..., part]
        importance.append(importance_loss(gating.weights[..., part]))
        if std is None or noise is None or logits.shape[-1] < 2:
            continue
        chosen = load_top_k(logits.shape[-1], top_k=top_k)
        load.append(load_loss(logits, std=std[..., part], noise=noise[:, None, part], top_k=chosen))
    return Balance(_total(importance, zero), _total(load, zero))


def _total(losses: list[Tensor], zero: Tensor) -> Tensor:
    return sum(losses[1:], start=losses[0]) if losses else zero
