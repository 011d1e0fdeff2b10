"""Which tensors a patch has and of which shapes: computed from its header, before any memory is taken for them.

Letters as in ``prompts``: L prompted blocks, N prompts of a block, D width, E low-rank experts of rank r.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..config import ExpertLayer, PatchConfig

Shapes = dict[str, tuple[int, ...]]
Layers = Sequence[Sequence[ExpertLayer]]  # of each block
_SPREAD = 64  # gate weights, L * N, for each number in the prompts: a real patch has less than one


def patch_shapes(
    config: PatchConfig, *, hidden_shapes: Sequence[Sequence[int]], gate_width: int, expert_layers: Layers = ()
) -> Shapes:
    """Name and shape of every tensor of the patch that ``Patch`` makes of the same arguments."""
    shapes: Shapes = {}
    if config.has_prompts:
        shapes |= {f"prompts.{i}": tuple(shape) for i, shape in enumerate(hidden_shapes)}
    shapes |= _expert_shapes(config, expert_layers)
    if not hidden_shapes or config.gate not in ("linear", "attention"):
        return shapes
    inputs = gate_width + int(config.scope == "distinct")  # t, and the block's index i
    if config.gate == "attention":
        width = hidden_shapes[0][-1]
        return shapes | {"gate.query": (width, width), "gate.key": (width, inputs), "gate.bias": (width,)}
    count = num_prompts(hidden_shapes) if config.has_prompts else 0
    count += config.experts_per_block
    return shapes | {"gate.weight": (count, inputs), "gate.bias": (count,)}


def _expert_shapes(config: PatchConfig, expert_layers: Layers) -> Shapes:
    """A (E, r, in) and B (out, E, r) of every layer of every block."""
    count, rank = config.experts_per_block, config.rank
    shapes: Shapes = {}
    for i, layers in enumerate(expert_layers):
        for j, layer in enumerate(layers):
            shapes[f"experts.{i}.{j}.down"] = (count, rank, layer.inputs)
            shapes[f"experts.{i}.{j}.up"] = (layer.outputs, count, rank)
    return shapes


def num_prompts(hidden_shapes: Sequence[Sequence[int]]) -> int:
    """N: the number of prompts of a block, on feature maps of the largest one; 0 if no block is prompted."""
    maps = [(shape[0], shape[1]) for shape in hidden_shapes if len(shape) == 3]
    return math.prod(max(maps)) if maps else hidden_shapes[0][0] if hidden_shapes else 0


def find_contradiction(
    config: PatchConfig, *, hidden_shapes: Sequence[Sequence[int]], expert_layers: Layers = ()
) -> str | None:
    """What makes these prompts and experts no patch of the variant ``config``, in words; None: nothing does."""
    kinds = {len(shape) for shape in hidden_shapes}
    if not kinds <= {2, 3} or len(kinds) > 1:
        return "its prompts are neither all of tokens (N, D) nor all of feature maps (H, W, C)"
    firsts = {shape[0] for shape in hidden_shapes}
    if config.has_prompts and kinds == {2} and len(firsts) > 1:
        return f"its blocks have {min(firsts)} to {max(firsts)} prompts, and one gate weighs those of all"
    if config.gate == "attention" and (kinds == {3} or len({tuple(shape) for shape in hidden_shapes}) > 1):
        return "its gate is of the kind attention, which needs tokens of one width"
    if bool(expert_layers) != bool(config.experts_per_block and hidden_shapes):
        return "it names layers of experts, or none, against its own variant"
    if expert_layers and (len(expert_layers) != len(hidden_shapes) or not any(expert_layers)):
        return f"it has experts in {len(expert_layers)} blocks of {len(hidden_shapes)}, or in no layer"
    prompts = num_prompts(hidden_shapes) if config.has_prompts else 0
    if config.top_k is not None and config.top_k > (prompts or config.experts_per_block):
        return f"it keeps the top {config.top_k} of {prompts or config.experts_per_block}"
    numbers = sum(math.prod(shape) for shape in hidden_shapes) if config.has_prompts else 0
    numbers += sum(math.prod(shape) for shape in _expert_shapes(config, expert_layers).values())
    if len(hidden_shapes) * (prompts + config.experts_per_block) > _SPREAD * numbers:
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
