"""Networks that read text, in the shapes of Stable Diffusion 1.5 and 3, with random weights and random captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from dmp_cli.backbones import Backbone, BlankCaptions, CaptionTable, Encoders, as_backbone

CAPTIONS = ("a red fox", "two cats", "a house by the sea", "snow")
# Widths of networks that a CPU can train; all else is as it was published.
UNET: dict[str, Any] = {"sample_size": 32, "block_out_channels": (64, 128, 256, 256), "cross_attention_dim": 256}
SD3: dict[str, Any] = {
    "sample_size": 32,
    "num_layers": 8,
    "attention_head_dim": 32,
    "num_attention_heads": 6,
    "caption_projection_dim": 192,
    "joint_attention_dim": 256,
    "pooled_projection_dim": 128,
    "pos_embed_max_size": 96,
}
_QUICK = {
    "unet": {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "attention_head_dim": 4},
    "sd3": {"num_layers": 2, "attention_head_dim": 8, "num_attention_heads": 4, "caption_projection_dim": 32},
}


class RandomText:
    """Stands where text encoders do: each caption has random states of the shapes that the network reads."""

    device = torch.device("cpu")

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def encode(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """What encoders give: ``states`` (B, S, E), ``mask`` (B, S), and ``pooled`` (B, P) where it is read."""
        found: dict[str, Tensor] = {}
        for name, shape in self.shapes.items():
            size = (len(captions), *shape)
            found[name] = torch.ones(size, dtype=torch.bool) if name == "mask" else torch.randn(size)
        return found


def with_captions(backbone: Backbone) -> Backbone:
    """``backbone`` with a table of captions that are random numbers; the table itself is that of any run."""
    text = RandomText(BlankCaptions(backbone).shapes)
    backbone.take_captions(CaptionTable(cast(Encoders, text)))
    return backbone


def narrow_unet(*, quick: bool) -> Backbone:
    """A U-Net of Stable Diffusion 1.5's blocks and layers, a fifth as wide, for 32x32 latents."""
    from diffusers import UNet2DConditionModel

    return with_captions(as_backbone(UNet2DConditionModel(**UNET | (_QUICK["unet"] if quick else {}))))


def tiny_sd3(*, quick: bool) -> Backbone:
    """A Stable Diffusion 3 of 8 blocks of width 192, for 32x32 latents and captions of 333 tokens."""
    from diffusers import SD3Transformer2DModel

    return with_captions(as_backbone(SD3Transformer2DModel(**SD3 | (_QUICK["sd3"] if quick else {}))))


def call_of(backbone: Backbone, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments of a call: noisy latents, timesteps or levels, and captions."""
    times = torch.rand(batch) if backbone.schedule.flow else torch.randint(0, 1000, (batch,))
    texts = [CAPTIONS[place % len(CAPTIONS)] for place in range(batch)]
    return torch.randn(batch, *backbone.sample_shape), times, backbone.captions.indices(texts)
