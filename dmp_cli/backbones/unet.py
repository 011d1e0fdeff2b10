"""U-Nets of diffusers: Stable Diffusion 1.5 and 2.x (``UNet2DConditionModel``) and ``UNet2DModel``.

The blocks are the down, mid and up blocks. A block's prompts are (H, W, C), the shape of its input for a 32x32 latent:
256 pixels through a codec of factor 8. For a backbone of smaller samples they are smaller.
Letters: B batch, S tokens of a caption, E width of a token's state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..config import BackboneHints
from ..errors import CheckpointError
from ..storage import Weights
from .base import Backbone, Block
from .wrapped import Wrapped, build_model, class_of, fill, read_sizes

_CONDITIONAL, _PLAIN = "UNet2DConditionModel", "UNet2DModel"
_PROMPTED_SIDE = 32  # side of the latent that sets the prompts' shapes: 256 pixels
# Further conditions that such a U-Net may take; none of them is supported.
_UNSUPPORTED = {
    "addition_embed_type": "further conditions, as in Stable Diffusion XL",
    "encoder_hid_dim_type": "the projection of another text encoder",
    "class_embed_type": "class embeddings besides the text",
    "time_cond_proj_dim": "a guidance embedding, as in distilled models",
}

SD15_SIZES = {"class": _CONDITIONAL, "sample_size": 64, "cross_attention_dim": 768}


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
        states, _ = self.captions.look_up(condition)  # (B, S, E)
        return self.model(x, timesteps, encoder_hidden_states=states, return_dict=False)[0]


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
    channels, out = model.config["in_channels"], model.config["out_channels"]
    if out not in (channels, 2 * channels):
        unsupported.append(f"{channels} channels in and {out} out (inpainting, depth or image variations)")
    if model.config.get("time_embedding_type", "positional") != "positional":
        unsupported.append("timesteps that are not whole numbers")
    if unsupported:
        raise CheckpointError(f"{source} is an unsupported U-Net: it has {'; '.join(unsupported)}")
