"""What a gate does, in one sentence: whether it chooses among its prompts, and what the choice follows."""

from __future__ import annotations

from .gate_comparison import Variance
from .gate_weights import GateStudy

_ALIKE = 0.98  # share of the prompts: a gate that effectively uses as many makes no choice
_LITTLE = 0.8  # likewise: one that uses more than this chooses little
_STEADY = 0.01  # nats of timestep and block together: a gate with less chooses the same ones everywhere
_MOST = 2 / 3  # share of the variance


def describe_gate(found: GateStudy, variance: Variance | None) -> str:
    """One sentence; ``variance`` is that of the same weights, None for a gate that is constant."""
    count = found.weights.shape[2]
    used = float(found.effective_prompts.mean())
    if count == 1:
        return "there is one prompt a block, so the gate has nothing to choose"
    if used >= _ALIKE * count:
        return f"the gate makes no choice yet: {round(used):,} of {count:,} prompts are used alike"
    how = "chooses little" if used >= _LITTLE * count else "chooses"
    chosen = f"the gate {how}: its weight lies on about {max(1, round(used)):,} of {count:,} prompts"
    told = sum(block.time_specialisation for block in found.blocks) / len(found.blocks)
    if variance is None or told + float(found.block_specialisation.mean()) < _STEADY:
        return f"{chosen}, on the same ones at every timestep and block"
    if variance.timestep >= _MOST:
        return f"{chosen}, and which ones follows the timestep ({_percent(variance.timestep)} of its variance)"
    if variance.depth >= _MOST:
        return f"{chosen}, and which ones follows the block ({_percent(variance.depth)} of its variance)"
    timestep, depth = _percent(variance.timestep), _percent(variance.depth)
    return f"{chosen}, and which ones follows timestep ({timestep}) and block ({depth})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
