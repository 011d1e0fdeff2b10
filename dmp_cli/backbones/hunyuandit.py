"""Hunyuan-DiT (Li et al. 2024): a DiT with skips from its first blocks to its last, which reads a BERT and an mT5.

Letters: B batch, S tokens of a caption, E width of a token's state.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .framed_images import FACTOR, frames_of, sizes_of_images
from .transformer import Transformer

_ORIGINAL = 1024  # side of the original image in its pipeline's default
_BASE = 512  # side of the image whose positions are the rotary table's own


class HunyuanDiT(Transformer):
    """Hunyuan-DiT as a backbone. The stock pipeline drops its learned variance."""

    family = "hunyuandit"
    classes = ("HunyuanDiT2DModel",)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    scaled_layers = ("to_out.0", "ff.net.2")
    block_lists = ("blocks",)
    takes_more_tokens = False  # it rotates queries and keys by tables of fixed length
    embedder_at = "time_extra_emb.timestep_embedder"
    features_at = "time_extra_emb.time_proj"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.learns_sigma = bool(model.config["learn_sigma"])

    def predict(self, x: Tensor, timesteps: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.model(
            x,
            timesteps.to(x.dtype),  # it takes no whole numbers
            encoder_hidden_states=text["states"],  # (B, S, E)
            text_embedding_mask=text["mask"],  # (B, S)
            encoder_hidden_states_t5=text["states_t5"],
            text_embedding_mask_t5=text["mask_t5"],
            image_rotary_emb=self._rotation(x),
            return_dict=False,
            **self._size_conditions(x),
        )[0]
        return found

    def _size_conditions(self, x: Tensor) -> dict[str, Tensor | None]:
        """Original size, target size, crop and style; only until version 1.1.

        Where nothing is said of how an image was cut they are as in the stock pipeline's defaults.
        """
        if not self.model.config["use_style_cond_and_image_meta_size"]:
            return {"image_meta_size": None, "style": None}
        sizes = sizes_of_images(x)
        original = torch.full_like(sizes[:, :2], _ORIGINAL) if frames_of(x) is None else sizes[:, :2]
        return {
            "image_meta_size": torch.cat([original, sizes[:, 4:], sizes[:, 2:4]], dim=1),
            "style": torch.zeros(len(x), dtype=torch.int64, device=x.device),
        }

    def _rotation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        patch, heads = int(self.model.config["patch_size"]), int(self.model.config["num_attention_heads"])
        width = int(self.model.inner_dim) // heads
        return _rotary_table(width, x.shape[2] // patch, x.shape[3] // patch, _BASE // FACTOR // patch, x.device)


@functools.lru_cache(maxsize=64)
def _rotary_table(width: int, rows: int, columns: int, base: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines for a grid of tokens, each (rows columns, width), as the pipeline makes them."""
    from diffusers.models.embeddings import get_2d_rotary_pos_embed
    from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

    with torch.inference_mode(False):  # ordinary tensors, which any later forward may use
        crop = get_resize_crop_region_for_grid((rows, columns), base)
        cosines, sines = get_2d_rotary_pos_embed(width, crop, (rows, columns), device=device, output_type="pt")
    return cosines, sines


HUNYUAN_11_SIZES: dict[str, Any] = {
    "class": HunyuanDiT.classes[0],
    "in_channels": 4,
    "patch_size": 2,
    "sample_size": 128,
    "num_layers": 40,
    "hidden_size": 1408,
    "mlp_ratio": 4.3637,
}
HUNYUAN_12_SIZES = {**HUNYUAN_11_SIZES, "use_style_cond_and_image_meta_size": False}
