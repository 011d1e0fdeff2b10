"""Lumina Image 2 (Qin et al. 2025): image and text in one sequence, where each row of a batch has its own length.

Letters: B batch, S tokens of a caption, E width of a token's state, N image tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..config import PipelineSampler
from .base import Block, Layout
from .schedules import RECTIFIED
from .transformer import Transformer


class Lumina2(Transformer):
    """Lumina Image 2 as a backbone. Its own time runs from noise, 0, to data, 1, and it predicts data minus noise."""

    family = "lumina2"
    classes = ("Lumina2Transformer2DModel",)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    scaled_layers = ("to_out.0", "feed_forward.linear_2")
    reads_mask = True
    other_negatives = True
    block_lists = ("noise_refiner", "layers")
    joined_in: ClassVar = {"layers": "behind"}
    takes_more_tokens = False
    embedder_at = "time_caption_embed.timestep_embedder"
    features_at = "time_caption_embed.time_proj"
    reverses = True
    trained_as = RECTIFIED
    flow_sampler = PipelineSampler(kind="FlowMatchEulerDiscreteScheduler", shift=6.0)
    even_levels = True

    def list_blocks(self) -> list[Block]:
        side = int(self.model.config["sample_size"]) // self.side_multiple
        width = int(self.model.config["hidden_size"])
        return self.blocks_of((side * side, width))

    @classmethod
    def layout_of(cls, core: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout:
        found = super().layout_of(core, args, kwargs)
        mask = kwargs["encoder_attention_mask"] if "encoder_attention_mask" in kwargs else args[3]  # (B, S)
        return Layout(found.grid, mask.sum(1))

    def predict(self, x: Tensor, timesteps: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.model(
            hidden_states=x,
            timestep=timesteps,
            encoder_hidden_states=text["states"],  # (B, S, E)
            encoder_attention_mask=text["mask"],  # (B, S)
            return_dict=False,
        )[0]
        return -found

    def restore(self) -> None:
        embedder = self.model.rope_embedder  # its tables are no buffers, and were built without values
        with torch.device("cpu"):
            embedder.freqs_cis = embedder._precompute_freqs_cis(embedder.axes_dim, embedder.axes_lens, embedder.theta)


LUMINA2_SIZES = {"class": Lumina2.classes[0], "cap_feat_dim": 2304}
