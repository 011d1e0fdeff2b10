"""The prompt balancing loss of the paper (Training): importance and load losses, after Shazeer et al. 2017.

Both losses keep the gate from using few prompts only. Importance balances the sums of their weights sigma(G([t; i])),
load balances how often each is among the top k.
Letters: B global batch, L prompted blocks, N prompts of a block, D width of the vector t that the gate reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config import DEAD_SHARE
from .gates import Gating, default_top_k

_EPSILON = 1e-10
_MIN_STD = 0.01
AT_ONCE = 1 << 25  # gate weights of which the losses are computed at once; what they hold is some four copies of them


class Balance(NamedTuple):
    """Both losses, scalars; one that is left out is zero."""

    importance: Tensor
    load: Tensor


class GateUse(NamedTuple):
    """How widely a gate spreads its weights over the prompts: three scalars, means over samples and blocks."""

    entropy: Tensor  # in nats
    effective_prompts: Tensor  # exp(entropy), taken for each sample and block
    dead_prompts: Tensor  # per block: the prompts that no sample gives more than a tenth of the uniform weight 1/N


def measure_use(weights: Tensor) -> GateUse:
    """Measure entropy, effective and dead prompts of gate weights (B, L, N). Each row is first divided by its sum."""
    return _use_of(_use_sums(weights), rows=weights.shape[0] * weights.shape[1])


@torch.no_grad()
def _use_sums(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy and effective prompts of (B, L, N), summed; and the largest share of each prompt, (L, N)."""
    shares = weights / weights.sum(-1, keepdim=True)
    entropy = torch.special.entr(shares).sum(-1)  # (B, L)
    return entropy.sum(), entropy.exp().sum(), shares.amax(0)


def _use_of(sums: tuple[Tensor, Tensor, Tensor], *, rows: int) -> GateUse:
    entropy, effective, largest = sums
    dead = (largest <= DEAD_SHARE / largest.shape[-1]).sum(-1)  # (L,)
    return GateUse(entropy / rows, effective / rows, dead.to(entropy.dtype).mean())


def cv_squared(values: Tensor) -> Tensor:
    """Squared coefficient of variation over the last axis: CV^2 = variance / (mean^2 + 1e-10), population variance."""
    return values.var(-1, unbiased=False) / (values.mean(-1).square() + _EPSILON)


def authors_importance(weights: Tensor) -> Tensor:
    """Importance loss of weights (B, L, N) as the authors' code computes it, for comparison only.

    It sums the weights over the blocks and takes CV^2 over batch and prompts. It therefore penalises a gate that treats
    timesteps differently. The load loss of that code is always 0.
    """
    return cv_squared(weights.sum(1).flatten())


def smooth_load(logits: Tensor, *, std: Tensor, noise: Tensor, top_k: int) -> Tensor:
    """A prompt's load, (L, N): the smooth count of the samples that have it among their top k.

    ``logits`` G([t; i]) are (B, L, N), ``std`` and the standard normal ``noise`` (B, 1, N), ``top_k`` < N (Shazeer et
    al., Eq. 8-10). The noise enters this estimate only, never the mixture.
    """
    noisy = torch.addcmul(logits, std, noise)
    best = noisy.topk(top_k + 1, dim=-1).values
    # Each prompt's threshold is the k-th largest of the others: the (k+1)-th of all for a member of the top k, else
    # the k-th.
    kth, next_largest = best[..., top_k - 1, None], best[..., top_k, None]
    threshold = torch.where(noisy > next_largest, next_largest, kth)
    # P(i in top k) = Phi((logit_i - kth_excluding_i) / std_i)
    return torch.special.ndtr((logits - threshold) / std).sum(0)


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
    read: Callable[[slice], Gating],
    *,
    count: int,
    each: int,
    load_noise: LoadNoise | None,
    noise: Tensor | None,
    top_k: int | None = None,
    parts: Sequence[slice] = (slice(None),),
) -> tuple[Balance, GateUse]:
    """Compute both balance losses of one global batch, and how its gate is used (Shazeer et al., Eq. 6-7 and 11).

    Each is CV^2 over the prompts, of their weights summed over the batch or of their loads, then the mean over blocks.
    A large batch is read piece by piece, and again for the gradients, so that what is held does not grow with it.

    Args:
        read: gives the gating of some samples of the batch.
        count: samples in the batch.
        each: weights of a sample, L N.
        load_noise: W_noise; None leaves the load loss out.
        noise: standard normal numbers (B, N); None leaves the load loss out.
        top_k: how many prompts count as chosen; None takes 75 % of N.
        parts: the weights that share a softmax, as :attr:`Patch.parts`; the losses of the parts are added up. The use
            is that of the first.
    """
    rows = max(1, AT_ONCE // each)
    pieces = [slice(first, min(first + rows, count)) for first in range(0, count, rows)]

    def sums_of(piece: slice) -> tuple[Tensor, ...]:
        gating, own = read(piece), None if noise is None else noise[piece]
        losses = _sums(gating, load_noise=load_noise, noise=own, top_k=top_k, parts=parts)
        return (*losses, *_use_sums(gating.weights.detach()[..., parts[0]]))

    if len(pieces) == 1:
        found = [sums_of(pieces[0])]
    else:
        how: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}  # nothing random is in it
        found = [checkpoint(sums_of, piece, **how) for piece in pieces]
    *sums, largest = (torch.stack(of) for of in zip(*found, strict=True))
    *sums, entropy, effective = (of.sum(0) for of in sums)
    # L_importance = mean_i CV^2_n(sum_b w_bin), L_load = mean_i CV^2_n(sum_b P_bin)
    losses = [cv_squared(of).mean() for of in sums]
    importance, load = _total(losses[: len(parts)]), _total(losses[len(parts) :] or [entropy.new_zeros(())])
    use = _use_of((entropy, effective, largest.amax(0)), rows=count * largest.shape[1])
    return Balance(importance, load), use


def _sums(
    gating: Gating, *, load_noise: LoadNoise | None, noise: Tensor | None, top_k: int | None, parts: Sequence[slice]
) -> list[Tensor]:
    """What both losses are computed from, each (L, N): the weights of each part summed over samples, then the loads."""
    assert gating.logits is not None
    std = None if load_noise is None or noise is None else load_noise(gating.vector)
    found = [gating.weights[..., part].sum(0) for part in parts]
    for part in parts:
        own = gating.logits[..., part]
        if std is None or noise is None or own.shape[-1] < 2:
            continue
        chosen = load_top_k(own.shape[-1], top_k=top_k)
        found.append(smooth_load(own, std=std[..., part], noise=noise[:, None, part], top_k=chosen))
    return found


def _total(losses: list[Tensor]) -> Tensor:
    return sum(losses[1:], start=losses[0])
