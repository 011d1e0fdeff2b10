"""PixArt-alpha and PixArt-Sigma (Chen et al. 2023 and 2024), DiTs that read text.

Letters: B batch, S tokens of a caption, E width of a token's state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .transformer import Transformer

_FACTOR = 8  # image pixels per latent pixel; the size conditions count image pixels


class PixArt(Transformer):
    """Either of both as a backbone."""

    family = "pixart"
    classes = ("PixArtTransformer2DModel",)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
    scaled_layers = ("to_out.0", "ff.net.2")
    reads_mask = True
    embedder_at = "adaln_single.emb.timestep_embedder"
    features_at = "adaln_single.emb.time_proj"

    def predict(self, x: Tensor, timesteps: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.model(
            x,
            encoder_hidden_states=text["states"],  # (B, S, E)
            encoder_attention_mask=text["mask"],  # (B, S)
            timestep=timesteps,
            added_cond_kwargs=self._size_conditions(x),
            return_dict=False,
        )[0]
        return found

    def _size_conditions(self, x: Tensor) -> dict[str, Tensor | None]:
        """Height, width and aspect ratio of the image. Only the 1024-pixel PixArt-alpha was trained to read them."""
        if not self.model.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (_FACTOR * side for side in x.shape[2:])
        return {
            "resolution": x.new_tensor([[height, width]]).expand(len(x), -1),
            "aspect_ratio": x.new_tensor([[height / width]]).expand(len(x), -1),
        }

    def restore(self) -> None:
        from diffusers.models.embeddings import get_2d_sincos_pos_embed

        embedding = self.model.pos_embed
        tokens, width = embedding.pos_embed.shape[1:]
        table = get_2d_sincos_pos_embed(
            width,
            int(tokens**0.5),
            base_size=embedding.base_size,
            interpolation_scale=embedding.interpolation_scale,
            output_type="pt",
            device=torch.device("cpu"),
        )
        embedding.register_buffer("pos_embed", table.float()[None], persistent=False)


# PixArt-Sigma for 1,024 pixels: the class' own defaults, and no size conditions, unlike PixArt-alpha of that size.
SIGMA_SIZES: dict[str, Any] = {"class": PixArt.classes[0], "caption_channels": 4096, "use_additional_conditions": False}
