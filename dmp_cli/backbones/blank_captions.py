"""Captions of the right shapes and of no content, for a backbone that is only counted and never reads a caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .base import Backbone
from .text_kinds import length_of

# Of a caption, as the pipelines encode it, where it is not their length of one: SD3 has a CLIP in front of its T5.
_TOKENS = {"unet": 77, "pixart": 300, "sd3": 77 + 256}
_OTHER_TOKENS = 256
# Fields of the configs of diffusers that say the width of a token's state; the first that is there.
_WIDTHS = ("joint_attention_dim", "caption_channels", "cap_feat_dim", "text_embed_dim", "cross_attention_dim")
_XL_POOLED, _XL_SIZES = "projection_class_embeddings_input_dim", 6


class BlankCaptions:
    """Takes the place of a ``CaptionTable``: every caption is the same, and its encodings have shapes alone."""

    def __init__(self, backbone: Backbone) -> None:
        config = getattr(backbone.core, "config", {})
        width = next((config[name] for name in _WIDTHS if config.get(name)), 0)
        tokens = backbone.text_length or _TOKENS.get(backbone.family) or length_of(backbone.family) or _OTHER_TOKENS
        self.shapes: dict[str, tuple[int, ...]] = {"states": (tokens, width), "mask": (tokens,)}
        if other := config.get("cross_attention_dim_t5"):  # Hunyuan-DiT reads two encoders, side by side
            self.shapes = {"states": (77, config["cross_attention_dim"]), "mask": (77,)}
            self.shapes |= {"states_t5": (_OTHER_TOKENS, other), "mask_t5": (_OTHER_TOKENS,)}
        if pooled := _pooled_width(config):
            self.shapes["pooled"] = (pooled,)

    def indices(self, captions: Sequence[str]) -> Tensor:
        """The indices (B,) of captions: that of the only one."""
        return torch.zeros(len(captions), dtype=torch.int64)

    def look_up(self, condition: Tensor) -> dict[str, Tensor]:
        """Encodings for ``condition`` (B,), by name."""
        types = {name: torch.bool if name.startswith("mask") else torch.float32 for name in self.shapes}
        return {name: torch.ones(len(condition), *shape, dtype=types[name]) for name, shape in self.shapes.items()}

    def lengths(self, condition: Tensor) -> list[int]:
        """Tokens of each caption in ``condition`` (B,)."""
        return [self.shapes["mask"][0]] * len(condition)


def _pooled_width(config: Mapping[str, Any]) -> int:
    """The width of a pooled state that the model of this config reads; 0: it reads none."""
    if config.get("addition_embed_type") == "text_time":
        return int(config[_XL_POOLED]) - _XL_SIZES * int(config["addition_time_embed_dim"])
    return int(config.get("pooled_projection_dim") or 0)
