"""U-Nets of diffusers: Stable Diffusion 1.5 and 2.x (``UNet2DConditionModel``) and ``UNet2DModel``.

The blocks are the down, mid and up blocks; a block's prompts are (H, W, C), as large as its input at 256 pixels through
a codec of factor 8 (a 32x32 latent), or smaller where the backbone's own sample is.
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
_PROMPTED_SIDE = 32  # of the latent that prompts are sized for: 256 pixels
# What else such a U-Net may take as its condition; none of it is known here.
_FOREIGN = {
    "addition_embed_type": "what Stable Diffusion XL takes beside its text",
    "encoder_hid_dim_type": "another text encoder's projection",
    "class_embed_type": "class embeddings beside the text",
    "time_cond_proj_dim": "a guidance embedding, as distilled models take",
}

SD15_SIZES = {"class": _CONDITIONAL, "sample_size": 64, "cross_attention_dim": 768}


class UNet(Wrapped):
    """A U-Net of diffusers as a backbone."""

    family = "unet"
    channels_last = True
    classes = (_CONDITIONAL, _PLAIN)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")

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
    """Whether these weights are a U-Net's, by their config."""
    return class_of(weights) in UNet.classes


def build(weights: Weights, hints: BackboneHints) -> Backbone:
    """The U-Net that ``weights`` hold, strictly loaded, float32, in eval mode. Raises CheckpointError."""
    with torch.device("meta"):
        backbone = build_empty(read_sizes(weights, hints), source=weights.path)
    return fill(backbone, weights)


def build_empty(sizes: dict[str, Any], *, source: object = "these sizes") -> UNet:
    """A U-Net of these sizes without its weights. Raises CheckpointError for one that is not known here."""
    model = build_model(sizes, UNet.classes, source=source)
    check_known(model, source=source)
    return UNet(model)


def check_known(model: Any, *, source: object) -> None:
    """Raise CheckpointError for a U-Net that takes more than an image, a timestep and a text or class."""
    foreign = [f"{key} ({why})" for key, why in _FOREIGN.items() if model.config.get(key)]
    channels, out = model.config["in_channels"], model.config["out_channels"]
    if out not in (channels, 2 * channels):
        foreign.append(f"{channels} channels in and {out} out (inpainting, depth or image variations)")
    if model.config.get("time_embedding_type", "positional") != "positional":
        foreign.append("timesteps that are no whole numbers")
    if foreign:
        raise CheckpointError(f"{source} is a U-Net that is not known here: it has {'; '.join(foreign)}")
