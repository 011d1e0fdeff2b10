"""Which tensors a patch has and of which shapes: computed from its header, before any memory is taken for them.

Letters as in ``prompts``: L prompted blocks, N prompts of a block, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..config import PatchConfig

Shapes = dict[str, tuple[int, ...]]
_SPREAD = 64  # gate weights, L * N, for each number in the prompts: a real patch has less than one


def patch_shapes(config: PatchConfig, *, hidden_shapes: Sequence[Sequence[int]], gate_width: int) -> Shapes:
    """Name and shape of every tensor of the patch that ``Patch`` makes of the same arguments."""
    shapes: Shapes = {f"prompts.{i}": tuple(shape) for i, shape in enumerate(hidden_shapes)}
    if not hidden_shapes or config.gate not in ("linear", "attention"):
        return shapes
    inputs = gate_width + int(config.scope == "distinct")  # t, and the block's index i
    if config.gate == "attention":
        width = hidden_shapes[0][-1]
        return shapes | {"gate.query": (width, width), "gate.key": (width, inputs), "gate.bias": (width,)}
    count = num_prompts(hidden_shapes)
    return shapes | {"gate.weight": (count, inputs), "gate.bias": (count,)}


def num_prompts(hidden_shapes: Sequence[Sequence[int]]) -> int:
    """N: the number of prompts of a block, on feature maps of the largest one; 0 if no block is prompted."""
    maps = [(shape[0], shape[1]) for shape in hidden_shapes if len(shape) == 3]
    return math.prod(max(maps)) if maps else hidden_shapes[0][0] if hidden_shapes else 0


def find_contradiction(config: PatchConfig, *, hidden_shapes: Sequence[Sequence[int]]) -> str | None:
    """What makes these prompts no patch of the variant ``config``, in words; None: nothing does."""
    kinds = {len(shape) for shape in hidden_shapes}
    if not kinds <= {2, 3} or len(kinds) > 1:
        return "its prompts are neither all of tokens (N, D) nor all of feature maps (H, W, C)"
    firsts = {shape[0] for shape in hidden_shapes}
    if kinds == {2} and len(firsts) > 1:
        return f"its blocks have {min(firsts)} to {max(firsts)} prompts, and one gate weighs those of all"
    if config.gate == "attention" and (kinds == {3} or len({tuple(shape) for shape in hidden_shapes}) > 1):
        return "its gate is of the kind attention, which needs tokens of one width"
    count = num_prompts(hidden_shapes)
    if config.top_k is not None and config.top_k > count:
        return f"it keeps the top {config.top_k} of {count} prompts"
    numbers = sum(math.prod(shape) for shape in hidden_shapes)
    if len(hidden_shapes) * count > _SPREAD * numbers:
        return "its gate has more weights than its prompts could need"
    return None


def find_differences(found: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]]) -> str | None:
    """How the shapes that are ``found`` differ from those that are ``expected``, by one example; None: they do not."""
    for name in sorted({*found, *expected}):
        if name not in expected:
            return f"{name[:80]} is not described"
        if name not in found:
            return f"{name} is missing"
        if tuple(found[name]) != tuple(expected[name]):
            return f"{name} has shape {tuple(found[name])}, not {tuple(expected[name])}"
    return None
