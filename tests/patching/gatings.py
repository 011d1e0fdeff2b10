"""The balance losses of a gate whose gating is known."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dmp_cli.patching.balance import Balance, GateUse, LoadNoise, measure_balance
from dmp_cli.patching.gates import Gating


def measured(
    gating: Gating,
    *,
    load_noise: LoadNoise | None = None,
    noise: Tensor | None = None,
    parts: Sequence[slice] = (slice(None),),
) -> tuple[Balance, GateUse]:
    """Both losses and the use of the gate."""
    count, blocks, width = gating.weights.shape

    def read(rows: slice) -> Gating:
        assert gating.logits is not None
        return Gating(gating.weights[rows], gating.logits[rows], gating.vector[rows])

    return measure_balance(read, count=count, each=blocks * width, load_noise=load_noise, noise=noise, parts=parts)
