"""Z-Image (Tongyi 2025): image and text in one sequence, the image first.

Letters: B batch, C channels, H and W of a latent, S tokens of a caption, E width of a token's state, N image tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..config import PipelineSampler
from ..errors import CheckpointError
from .base import Block, Layout
from .schedules import RECTIFIED
from .transformer import Transformer

_PATCH = 2  # the one side of a patch that its pipeline uses


class ZImage(Transformer):
    """Z-Image as a backbone. Its own time runs from noise, 0, to data, 1, and it predicts data minus noise."""

    family = "zimage"
    classes = ("ZImageTransformer2DModel",)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    scaled_layers = ("to_out.0", "feed_forward.w2")
    reads_mask = True
    block_lists = ("noise_refiner", "layers")
    joined_in: ClassVar = {"noise_refiner": "first", "layers": "first"}  # padding follows the image in both
    takes_more_tokens = False
    embedder_at = features_at = "t_embedder"  # one module of its own
    feature_scale = 1000
    reverses = True
    side = 128  # 1,024 pixels, as its pipeline's default
    trained_as = RECTIFIED
    flow_sampler = PipelineSampler(kind="FlowMatchEulerDiscreteScheduler", shift=3.0)
    even_levels = True

    @classmethod
    def check(cls, model: Any, *, source: object) -> None:
        config = model.config
        if (
            _PATCH not in config["all_patch_size"]
            or 1 not in config["all_f_patch_size"]
            or config.get("siglip_feat_dim")
        ):
            raise CheckpointError(f"{source} is not supported: it is no Z-Image for text alone, in patches of 2 x 2")

    def width_of_gate(self) -> int:
        return int(self.embedder.mlp[2].out_features)

    @property
    def side_multiple(self) -> int:
        return _PATCH

    def list_blocks(self) -> list[Block]:
        assert self.side is not None
        side = self.side // _PATCH
        return self.blocks_of((side * side, int(self.model.config["dim"])))

    @classmethod
    def layout_of(cls, core: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout:
        latents = args[0] if args else kwargs["x"]  # of each image, (C, 1, H, W)
        sizes = {tuple(own.shape[-2:]) for own in latents}
        if len(sizes) != 1:
            raise ValueError(f"a patched Z-Image takes images of one size at a time, not of {sorted(sizes)}")
        height, width = sizes.pop()
        return Layout((height // _PATCH, width // _PATCH))

    def gate_vector(self, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        found: Tensor = self.embedder(self._own(timesteps, self.feature_scale))
        return found

    def predict(self, x: Tensor, timesteps: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        lengths = text["mask"].sum(1).tolist()
        captions = [states[:length] for states, length in zip(text["states"], lengths, strict=True)]  # (S, E) each
        latents = list(x.unsqueeze(2).unbind(0))
        found = self.model(latents, timesteps, captions, return_dict=False)[0]
        return -torch.stack(list(found)).squeeze(2)


Z_IMAGE_SIZES = {"class": ZImage.classes[0]}
