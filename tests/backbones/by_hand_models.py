"""Tiny models of diffusers that no family names, and what one says of them to patch them by hand."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from torch import Tensor


class Foreign(NamedTuple):
    """A model, what is said of it by hand, and one call of it for two images."""

    model: Any
    said: dict[str, Any]
    call: dict[str, Tensor]


def cogview3(*, height: int = 8, width: int = 8, seed: int = 0) -> Foreign:
    """A CogView 3: its blocks are given the image alone, the caption as a second argument."""
    torch.manual_seed(seed)
    sizes = {"patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 8}
    more = {"num_attention_heads": 2, "text_embed_dim": 12, "time_embed_dim": 16, "condition_dim": 4}
    model = diffusers.CogView3PlusTransformer2DModel(**sizes, **more, pos_embed_max_size=16, sample_size=8)
    call = {
        "hidden_states": torch.randn(2, 4, height, width),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "timestep": torch.tensor([300.0, 20.0]),
        **{name: torch.full((2, 2), 8.0) for name in ("original_size", "target_size", "crop_coords")},
    }
    said = {
        "block_lists": ["transformer_blocks"],
        "timestep_module": "time_condition_embed.timestep_embedder",
        "inputs": dict.fromkeys(("original_size", "target_size", "crop_coords"), (1, 2)),
    }
    return Foreign(model.eval(), said, call)


def flux2(*, side: int = 4, seed: int = 0) -> Foreign:
    """A Flux 2: latents come as tokens, and its single blocks are given text and image as one sequence."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        **{"patch_size": 1, "in_channels": 8, "num_layers": 1, "num_single_layers": 2, "attention_head_dim": 16},
        **{"num_attention_heads": 2, "joint_attention_dim": 12, "axes_dims_rope": (4, 4, 4, 4)},
    }
    kind = diffusers.Flux2Transformer2DModel
    if "guidance_embeds" in inspect.signature(kind).parameters:  # older ones are always told a guidance
        sizes["guidance_embeds"] = True
    model = kind(**sizes)
    places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).reshape(-1, 2)
    call = {
        "hidden_states": torch.randn(2, side * side, 8),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "timestep": torch.tensor([0.9, 0.1]),
        "img_ids": torch.nn.functional.pad(places, (1, 1)).float(),
        "txt_ids": torch.zeros(5, 4),
        "guidance": torch.tensor([3.5, 3.5]),
    }
    said = {
        "block_lists": ["transformer_blocks", "single_transformer_blocks"],
        "timestep_module": "time_guidance_embed.timestep_embedder",
        "image_at": {"single_transformer_blocks": "last"},
        "inputs": {
            "hidden_states": (1, 16, 8),
            "encoder_hidden_states": (1, 5, 12),
            "img_ids": (16, 4),
            "txt_ids": (5, 4),
            "guidance": (1,),
        },
    }
    return Foreign(model.eval(), said, call)


MODELS = {"CogView3Plus": cogview3, "Flux2": flux2}


def save(folder: Path, model: Any) -> Path:
    """The model's own folder, as diffusers writes it."""
    model.save_pretrained(folder)
    return folder
