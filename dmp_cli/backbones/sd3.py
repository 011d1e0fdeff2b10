"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): image and text tokens in one attention, trained by rectified flow.

Letters: B batch, S tokens of a caption, E width of a token's state, P of a pooled one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..config import LevelRule, PipelineSampler
from .schedules import RECTIFIED
from .transformer import Transformer


class SD3(Transformer):
    """Stable Diffusion 3 or 3.5 as a backbone."""

    family = "sd3"
    classes = ("SD3Transformer2DModel",)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    scaled_layers = ("to_out.0", "ff.net.2")
    embedder_at = "time_text_embed.timestep_embedder"
    features_at = "time_text_embed.time_proj"
    feature_scale = core_scale = 1000
    image_output = 1
    trained_as = RECTIFIED
    level_rule = LevelRule(kind="logit-normal", shift=3.0)
    flow_sampler = PipelineSampler(kind="FlowMatchEulerDiscreteScheduler", shift=3.0)

    @property
    def largest_side(self) -> int:
        """The largest side of a sample that its table of positions covers."""
        return int(self.model.config["pos_embed_max_size"]) * self.side_multiple

    def predict(self, x: Tensor, timesteps: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.model(
            hidden_states=x,
            encoder_hidden_states=text["states"],  # (B, S, E)
            pooled_projections=text["pooled"],  # (B, P)
            timestep=timesteps,
            return_dict=False,
        )[0]
        return found


SD3_SIZES: dict[str, Any] = {  # medium
    "class": SD3.classes[0],
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
SD35_MEDIUM_SIZES = {
    **SD3_SIZES,
    "pos_embed_max_size": 384,
    "dual_attention_layers": list(range(13)),
    "qk_norm": "rms_norm",
}
SD35_LARGE_SIZES = {
    **SD3_SIZES,
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
}
