"""How many prompts a block of tokens gets where nobody says it.

The paper has one for each token. At 1,024 pixels that is 3 to 22 % of the transformers of today, and its promise is 1
to 2 %: there the prompts have a grid of their own, which is resized to the tokens.
"""

from __future__ import annotations

import math

from ..backbones import Backbone
from ..config import PatchConfig
from .compatibility import prompted_blocks

_GRID = (16, 16)  # tokens of an image of 256 pixels in the paper
_LARGEST_SHARE = 0.02  # of the model's parameters


def with_grid(config: PatchConfig, backbone: Backbone) -> PatchConfig:
    """``config`` with the grid that it leaves open; one that is named, or said to be the tokens, stays."""
    if "prompt_grid" in config.model_fields_set or not config.has_prompts or config.position == "prepend":
        return config
    shapes = [block.hidden_shape for block in prompted_blocks(backbone.list_blocks(), config)]
    if not shapes or any(len(shape) != 2 for shape in shapes) or shapes[0][0] <= math.prod(_GRID):
        return config
    count = sum(math.prod(shape) for shape in shapes)
    is_large = count > _LARGEST_SHARE * backbone.num_parameters()
    return config.model_copy(update={"prompt_grid": _GRID}) if is_large else config
