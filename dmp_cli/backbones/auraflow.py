"""AuraFlow (Fal 2024): double-stream blocks, then single-stream ones that are given text and image as one sequence.

Letters: B batch, S tokens of a caption, E width of a token's state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from ..config import PipelineSampler
from .schedules import RECTIFIED
from .transformer import Transformer


class AuraFlow(Transformer):
    """AuraFlow as a backbone. In its single-stream blocks 8 registers and the text come before the image."""

    family = "auraflow"
    classes = ("AuraFlowTransformer2DModel",)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
    scaled_layers = ("to_out.0", "ff.out_projection")
    block_lists = ("joint_transformer_blocks", "single_transformer_blocks")
    joined_in: ClassVar = {"single_transformer_blocks": "last"}
    takes_more_tokens = False  # a prompt in front of image and text would be taken for text
    embedder_at = "time_step_proj"
    features_at = "time_step_embed"  # it multiplies by 1000 itself
    image_output = 1
    trained_as = RECTIFIED
    flow_sampler = PipelineSampler(kind="FlowMatchEulerDiscreteScheduler", shift=1.73)

    def predict(self, x: Tensor, timesteps: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = self.model(
            x,
            encoder_hidden_states=text["states"],  # (B, S, E)
            timestep=timesteps,
            return_dict=False,
        )[0]
        return found


AURAFLOW_SIZES = {"class": AuraFlow.classes[0], "pos_embed_max_size": 9216}
