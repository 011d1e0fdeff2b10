"""Sana (Xie et al. 2024): a transformer with linear attention, one token for each of the few latents of a deep VAE.

Letters: B batch, S tokens of a caption, E width of a token's state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..config import PipelineSampler
from ..errors import CheckpointError
from .schedules import RECTIFIED
from .transformer import Transformer


class Sana(Transformer):
    """Sana as a backbone."""

    family = "sana"
    classes = ("SanaTransformer2DModel",)
    lora_targets = ("to_q", "to_k", "to_v")
    scaled_layers = ("to_out.0", "ff.conv_point")
    reads_mask = True
    other_negatives = True
    takes_more_tokens = False  # its MLP convolves the grid of tokens
    embedder_at = "time_embed.emb.timestep_embedder"
    features_at = "time_embed.emb.time_proj"
    feature_scale = core_scale = 1000
    trained_as = RECTIFIED
    flow_sampler = PipelineSampler(kind="FlowMatchEulerDiscreteScheduler", shift=3.0)

    @classmethod
    def check(cls, model: Any, *, source: object) -> None:
        if model.config["guidance_embeds"] or model.config["timestep_scale"] != 1:
            raise CheckpointError(f"{source} is not supported: it is a distilled Sana (Sprint), which reads a guidance")

    def predict(self, x: Tensor, timesteps: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.model(
            x,
            encoder_hidden_states=text["states"],  # (B, S, E)
            encoder_attention_mask=text["mask"],  # (B, S)
            timestep=timesteps,
            return_dict=False,
        )[0]
        return found


SANA_1600M_SIZES: dict[str, Any] = {"class": Sana.classes[0]}
SANA_600M_SIZES = {
    **SANA_1600M_SIZES,
    "num_layers": 28,
    "num_attention_heads": 36,
    "num_cross_attention_heads": 16,
    "cross_attention_head_dim": 72,
    "cross_attention_dim": 1152,
}
