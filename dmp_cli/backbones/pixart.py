"""PixArt-alpha (Chen et al. 2023), a DiT that reads text, as diffusers' ``PixArtTransformer2DModel``.

Letters: B batch, N tokens, D width, S tokens of a caption, E width of a token's state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..config import BackboneHints
from ..storage import Weights
from .base import Backbone, Block
from .wrapped import Wrapped, build_model, class_of, fill, read_sizes

_CLASS = "PixArtTransformer2DModel"
_FACTOR = 8  # image pixels per latent pixel; the size conditions count image pixels


class PixArt(Wrapped):
    """PixArt-alpha as a backbone. A block's prompts are (N, D), one for each token at the size in its config."""

    family = "pixart"
    classes = (_CLASS,)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
    scaled_layers = ("to_out.0", "ff.net.2")
    takes_text = True
    reads_mask = True
    has_null = True
    num_classes = 0

    @property
    def embedder(self) -> Any:
        return self.model.adaln_single.emb.timestep_embedder

    @property
    def time_features(self) -> nn.Module:
        return self.model.adaln_single.emb.time_proj

    def list_blocks(self) -> list[Block]:
        config = self.model.config
        tokens = (config["sample_size"] // config["patch_size"]) ** 2
        width = config["num_attention_heads"] * config["attention_head_dim"]
        return [
            Block(f"transformer_blocks.{index}", block, (tokens, width))
            for index, block in enumerate(self.model.transformer_blocks)
        ]

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is None:
            raise ValueError("this PixArt takes a caption for every image")
        text = self.captions.look_up(condition)  # states (B, S, E), mask (B, S)
        return self.model(
            x,
            encoder_hidden_states=text["states"],
            encoder_attention_mask=text["mask"],
            timestep=timesteps,
            added_cond_kwargs=self._size_conditions(x),
            return_dict=False,
        )[0]

    def _size_conditions(self, x: Tensor) -> dict[str, Tensor | None]:
        """Height, width and aspect ratio of the image. Only the 1024-pixel PixArt was trained to read them."""
        if not self.model.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (_FACTOR * side for side in x.shape[2:])
        return {
            "resolution": x.new_tensor([[height, width]]).expand(len(x), -1),
            "aspect_ratio": x.new_tensor([[height / width]]).expand(len(x), -1),
        }


def recognises(weights: Weights) -> bool:
    """Whether these weights belong to a PixArt, by their config."""
    return class_of(weights) in PixArt.classes


def build(weights: Weights, hints: BackboneHints) -> Backbone:
    """Load the PixArt that ``weights`` hold: strictly, in float32, in eval mode. Raises CheckpointError."""
    with torch.device("meta"):
        backbone = build_empty(read_sizes(weights, hints), source=weights.path)
    _restore_positions(backbone.model.pos_embed)
    return fill(backbone, weights)


def build_empty(sizes: dict[str, Any], *, source: object = "these sizes") -> PixArt:
    """Build a PixArt of these sizes without its weights. Raises CheckpointError if the config is invalid."""
    return PixArt(build_model(sizes, PixArt.classes, source=source))


def _restore_positions(embedding: Any) -> None:
    # No file holds this buffer, and on the meta device it was built without values.
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

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
