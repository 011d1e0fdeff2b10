"""Flux.1 dev and schnell (Black Forest Labs 2024): double-stream, then single-stream blocks, by rectified flow.

Letters: B batch, C channels, H and W of a latent, N = H W / 4 its tokens, S tokens of a caption.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from ..config import PipelineSampler
from ..errors import CheckpointError
from .base import Layout
from .embedded_guidance import rows_of_guidance
from .schedules import RECTIFIED
from .transformer import Transformer

_GRIDS = WeakIdKeyDictionary()  # of the tensors of places that were seen
_GUIDANCE = 3.5  # of dev, in its pipeline's default and in training


class Flux(Transformer):
    """Flux.1 as a backbone. Its captions have no null; dev reads the scale of guidance instead, as it was distilled."""

    family = "flux"
    classes = ("FluxTransformer2DModel",)
    lora_targets = (
        *("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp", "proj_out"),
    )
    scaled_layers = ("to_out.0", "ff.net.2", "proj_out")
    has_null = False
    block_lists = ("transformer_blocks", "single_transformer_blocks")
    embedder_at = "time_text_embed.timestep_embedder"
    features_at = "time_text_embed.time_proj"
    feature_scale = 1000
    side = 128  # 1,024 pixels, as its pipeline's default
    packing = 2
    image_output = 1
    overflows_fp16 = True
    takes_more_tokens = False  # it rotates queries and keys by tables of fixed length
    trained_as = RECTIFIED
    flow_sampler = PipelineSampler(
        kind="FlowMatchEulerDiscreteScheduler", shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
    )
    even_levels = True

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.embedded_guidance = _GUIDANCE if model.config["guidance_embeds"] else None

    @classmethod
    def check(cls, model: Any, *, source: object) -> None:
        if model.config["patch_size"] != 1 or model.config["in_channels"] % cls.packing**2:
            raise CheckpointError(f"{source} is not supported: a Flux.1 takes latents in squares of 2 x 2")
        axes, width = model.config["axes_dims_rope"], model.config["attention_head_dim"]
        if len(axes) != 3 or sum(axes) != width:
            raise CheckpointError(f"{source}: axes_dims_rope {list(axes)} must be three numbers that add up to {width}")

    @classmethod
    def layout_of(cls, core: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout:
        return Layout(_grid_of(kwargs["img_ids"]))

    def predict(self, x: Tensor, timesteps: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        height, width = (side // self.packing for side in x.shape[2:])
        found = self.model(
            hidden_states=pack(x, self.packing),
            encoder_hidden_states=text["states"],
            pooled_projections=text["pooled"],
            timestep=timesteps,
            guidance=None if self.embedded_guidance is None else rows_of_guidance(x, default=self.embedded_guidance),
            img_ids=_places(height, width, x.dtype, x.device),
            txt_ids=x.new_zeros(text["states"].shape[1], 3),
            return_dict=False,
        )[0]
        return unpack(found, self.packing, size=(height, width))


@functools.lru_cache(maxsize=64)
def _places(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0, row and column of each token, (N, 3). The same tensor for the same grid, so that its grid is known."""
    with torch.inference_mode(False):  # an ordinary tensor, which any later forward may use
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        places = torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).to(device, dtype)
    if not torch.compiler.is_compiling():
        _GRIDS[places] = (height, width)
    return places


def _grid_of(places: Tensor) -> tuple[int, int]:
    """The rows and columns of the tokens at ``places`` (N, 3). A device is waited for once for each tensor."""
    if torch.compiler.is_compiling():
        rows = int(places[-1, 1]) + 1
        return rows, places.shape[-2] // rows
    found = _GRIDS.get(places)
    if found is None:
        if bool(places[:, 0].any()):  # as Kontext marks the tokens of a second image
            raise ValueError("a patched Flux.1 takes no image beside the one that it draws")
        rows = int(places[-1, 1]) + 1
        found = _GRIDS[places] = rows, places.shape[-2] // rows
    return found


def pack(x: Tensor, side: int) -> Tensor:
    """Latents (B, C, H, W) as tokens, (B, N, C side²): squares of ``side``, row by row, channels first in each."""
    batch, channels, height, width = x.shape
    tiles = x.reshape(batch, channels, height // side, side, width // side, side)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * side * side)


def unpack(tokens: Tensor, side: int, *, size: tuple[int, int]) -> Tensor:
    """The reverse of :func:`pack`, for a grid of ``size`` tokens."""
    height, width = size
    tiles = tokens.reshape(len(tokens), height, width, -1, side, side)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height * side, width * side)


FLUX_DEV_SIZES = {"class": Flux.classes[0], "guidance_embeds": True}
FLUX_SCHNELL_SIZES = {"class": Flux.classes[0]}
