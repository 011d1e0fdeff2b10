"""U-Nets of diffusers: Stable Diffusion 1.5, 2.x and XL (``UNet2DConditionModel``), and ``UNet2DModel``.

The blocks are the down, mid and up blocks. A block's prompts are (H, W, C), the shape of its input for a 32x32 latent:
256 pixels through a codec of factor 8. For a backbone of smaller samples they are smaller.
Letters: B batch, S tokens of a caption, E width of a token's state, P of a pooled one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..config import BackboneHints
from ..errors import CheckpointError
from ..storage import Weights
from .base import Backbone, Block
from .framed_images import sizes_of_images
from .wrapped import Wrapped, build_model, class_of, fill, read_sizes

_CONDITIONAL, _PLAIN = "UNet2DConditionModel", "UNet2DModel"
_PROMPTED_SIDE = 32  # side of the latent that sets the prompts' shapes: 256 pixels
# Further conditions that such a U-Net may take; none of them is supported.
_UNSUPPORTED = {
    "encoder_hid_dim_type": "the projection of another text encoder",
    "class_embed_type": "class embeddings besides the text",
    "time_cond_proj_dim": "a guidance embedding, as in distilled models",
}

SD15_SIZES = {"class": _CONDITIONAL, "sample_size": 64, "cross_attention_dim": 768}
SDXL_SIZES: dict[str, Any] = {  # Podell et al. 2023, the base model
    "class": _CONDITIONAL,
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


class UNet(Wrapped):
    """A U-Net of diffusers as a backbone. A block's prompts are (H, W, C)."""

    family = "unet"
    channels_last = True
    classes = (_CONDITIONAL, _PLAIN)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    scaled_layers = ("to_out.0", "ff.net.2")
    class_table = "class_embedding.weight"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.takes_text = type(model).__name__ == _CONDITIONAL
        self.has_null = self.takes_text
        self.num_classes = 0 if self.takes_text else int(model.config.get("num_class_embeds") or 0)

    @property
    def embedder(self) -> Any:
        return self.model.time_embedding

    @property
    def time_features(self) -> nn.Module:
        return self.model.time_proj

    def list_blocks(self) -> list[Block]:
        model, channels = self.model, list(self.model.config["block_out_channels"])
        deepest = len(channels) - 1
        side = 1 << (min(_PROMPTED_SIDE, self.model.config["sample_size"]).bit_length() - 1)
        sides = [max(1, side >> level) for level in range(deepest + 1)]
        blocks = [
            Block(f"down_blocks.{i}", block, (sides[i], sides[i], channels[max(0, i - 1)]))
            for i, block in enumerate(model.down_blocks)
        ]
        if model.mid_block is not None:
            blocks.append(Block("mid_block", model.mid_block, (sides[-1], sides[-1], channels[-1])))
        for i, block in enumerate(model.up_blocks):
            level = deepest - i
            blocks.append(
                Block(f"up_blocks.{i}", block, (sides[level], sides[level], channels[min(deepest, level + 1)]))
            )
        return blocks

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        if not self.takes_text:
            labels = condition if self.num_classes else None
            return self.model(x, timesteps, class_labels=labels, return_dict=False)[0]
        if condition is None:
            raise ValueError("this U-Net takes a caption for every image")
        text = self.captions.look_up(condition)  # states (B, S, E), and for XL pooled (B, P)
        more = {"added_cond_kwargs": self._added(x, text.get("pooled"))} if self.is_xl else {}
        return self.model(x, timesteps, encoder_hidden_states=text["states"], return_dict=False, **more)[0]

    @property
    def is_xl(self) -> bool:
        """Whether it reads pooled states of the caption and the sizes of the image, as Stable Diffusion XL does."""
        return self.takes_text and self.model.config.get("addition_embed_type") == "text_time"

    def _added(self, x: Tensor, pooled: Tensor | None) -> dict[str, Tensor]:
        """The further conditions of XL: pooled states, and height, width, crop and target size in pixels.

        Raises:
            CheckpointError: the text encoder gives no pooled states.
        """
        if pooled is None:
            raise CheckpointError(
                "this U-Net of Stable Diffusion XL needs two text encoders, and its pipeline has one",
                hint="Give the whole pipeline folder of the XL model.",
            )
        return {"text_embeds": pooled, "time_ids": sizes_of_images(x)}


def recognises(weights: Weights) -> bool:
    """Whether these weights belong to a U-Net, by their config."""
    return class_of(weights) in UNet.classes


def build(weights: Weights, hints: BackboneHints) -> Backbone:
    """Load the U-Net that ``weights`` hold: strictly, in float32, in eval mode. Raises CheckpointError."""
    with torch.device("meta"):
        backbone = build_empty(read_sizes(weights, hints), source=weights.path)
    return fill(backbone, weights)


def build_empty(sizes: dict[str, Any], *, source: object = "these sizes") -> UNet:
    """Build a U-Net of these sizes without its weights. Raises CheckpointError if it is not supported."""
    model = build_model(sizes, UNet.classes, source=source)
    check_known(model, source=source)
    return UNet(model)


def check_known(model: Any, *, source: object) -> None:
    """Raise CheckpointError for a U-Net that takes more than an image, a timestep and a caption or class."""
    unsupported = [f"{key} ({why})" for key, why in _UNSUPPORTED.items() if model.config.get(key)]
    if model.config.get("addition_embed_type") not in (None, "text_time"):
        unsupported.append(f"addition_embed_type {model.config['addition_embed_type']} (further conditions)")
    channels, out = model.config["in_channels"], model.config["out_channels"]
    if out not in (channels, 2 * channels):
        unsupported.append(f"{channels} channels in and {out} out (inpainting, depth or image variations)")
    if model.config.get("time_embedding_type", "positional") != "positional":
        unsupported.append("timesteps that are not whole numbers")
    if unsupported:
        raise CheckpointError(f"{source} is an unsupported U-Net: it has {'; '.join(unsupported)}")
