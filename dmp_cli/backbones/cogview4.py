"""CogView4 (Z.ai 2025): image and text tokens in one attention, captions read by a GLM, sizes of the image read too.

Letters: B batch, S tokens of a caption, E width of a token's state.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..config import LevelRule, PipelineSampler
from .flow_shift import root_mu, shift_of
from .framed_images import sizes_of_images
from .schedules import RECTIFIED
from .transformer import Transformer


class CogView4(Transformer):
    """CogView4 as a backbone.

    Its own timestep is not the level: it is what the level was before it was moved towards noise for the image's size.
    Its attention reads the padding of captions and cannot be told not to, so a batch is computed by their lengths.
    """

    family = "cogview4"
    classes = ("CogView4Transformer2DModel",)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    scaled_layers = ("to_out.0", "ff.net.2")
    takes_more_tokens = False  # it rotates queries and keys by tables of fixed length
    one_length = True
    embedder_at = "time_condition_embed.timestep_embedder"
    features_at = "time_condition_embed.time_proj"
    image_output = 0
    trained_as = RECTIFIED
    flow_sampler = PipelineSampler(
        kind="FlowMatchEulerDiscreteScheduler",
        shift=1.0,
        use_dynamic_shifting=True,
        base_shift=0.25,
        max_shift=0.75,
        base_image_seq_len=256,
        time_shift_type="linear",
    )
    whole_timesteps = True

    @property
    def level_rule(self) -> LevelRule:
        """All timesteps alike, so that larger images show more noise, as diffusers' own script trains it."""
        return LevelRule(shift=self._shift(self.num_tokens))

    def dynamic_shift(self, own: PipelineSampler) -> float:
        return root_mu(own, self.num_tokens)

    def gate_vector(self, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        return super().gate_vector(self._own_timesteps(timesteps, self.num_tokens))

    def predict(self, x: Tensor, timesteps: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        sizes = sizes_of_images(x)
        found: Tensor = self.model(
            hidden_states=x,
            encoder_hidden_states=text["states"],  # (B, S, E)
            timestep=self._own_timesteps(timesteps, x.shape[2] * x.shape[3] // self.side_multiple**2),
            original_size=sizes[:, :2],
            target_size=sizes[:, 4:],
            crop_coords=sizes[:, 2:4],
            return_dict=False,
        )[0]
        return found

    def levels_of(self, timesteps: Tensor, x: Tensor) -> Tensor:
        own, shift = timesteps / 1000, self._shift(x.shape[2] * x.shape[3] // self.side_multiple**2)
        return shift * own / (1 + (shift - 1) * own)

    def _shift(self, tokens: int) -> float:
        """S of an image of so many tokens: a timestep u / 1000 of the model has the level S u / (1 + (S - 1) u)."""
        own = self.flow_sampler
        assert own is not None
        if own.use_dynamic_shifting:
            return shift_of(own, root_mu(own, tokens))
        return own.flow_shift or own.shift or 1.0

    def _own_timesteps(self, levels: Tensor, tokens: int) -> Tensor:
        """The model's timesteps (B,), 0 to 1000, of levels (B,)."""
        # u = s / (s + S (1 - s)); a level in float32 holds two decimals of it, and the pipeline's own are whole
        return torch.round(1000 * levels / (levels + self._shift(tokens) * (1 - levels)), decimals=2)


COGVIEW4_SIZES = {"class": CogView4.classes[0], "num_layers": 28, "num_attention_heads": 32, "attention_head_dim": 128}
