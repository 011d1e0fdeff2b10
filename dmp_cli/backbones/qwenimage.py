"""Qwen-Image (Wu et al. 2025): image and text tokens in one attention, captions read by a Qwen 2.5 VL.

Letters: B batch, S tokens of a caption, E width of a token's state.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..config import PipelineSampler
from ..errors import CheckpointError
from .base import Layout
from .flux import pack, unpack
from .schedules import RECTIFIED
from .transformer import Transformer


class QwenImage(Transformer):
    """Qwen-Image as a backbone."""

    family = "qwenimage"
    classes = ("QwenImageTransformer2DModel",)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    scaled_layers = ("to_out.0", "img_mlp.net.2")
    reads_mask = True
    takes_more_tokens = False  # it rotates queries and keys by tables of fixed length
    embedder_at = "time_text_embed.timestep_embedder"
    features_at = "time_text_embed.time_proj"  # it multiplies by 1000 itself
    side = 128  # 1,024 pixels
    packing = 2
    image_output = 1
    overflows_fp16 = True
    trained_as = RECTIFIED
    flow_sampler = PipelineSampler(
        kind="FlowMatchEulerDiscreteScheduler",
        shift=1.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=0.9,
        max_image_seq_len=8192,
        shift_terminal=0.02,
    )
    even_levels = True

    @classmethod
    def check(cls, model: Any, *, source: object) -> None:
        import diffusers

        if "txt_seq_lens" in inspect.signature(type(model).forward).parameters:
            raise CheckpointError(
                f"{source}: a Qwen-Image needs a newer diffusers than {diffusers.__version__}",
                hint="Update it: pip install -U diffusers.",
            )
        more = ("zero_cond_t", "use_additional_t_cond", "use_layer3d_rope", "guidance_embeds")
        if found := [name for name in more if model.config.get(name)]:
            raise CheckpointError(f"{source} is not supported: a Qwen-Image with {', '.join(found)} (editing, layers)")

    @property
    def side_multiple(self) -> int:
        return self.packing  # which its config calls patch_size

    @classmethod
    def layout_of(cls, core: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout:
        shapes = {tuple(shape) for own in kwargs["img_shapes"] for shape in own}  # of each image: 1, rows, columns
        if len(shapes) != 1 or any(len(own) != 1 for own in kwargs["img_shapes"]):
            raise ValueError(f"a patched Qwen-Image takes one image of one size a row, not {sorted(shapes)}")
        _, rows, columns = shapes.pop()
        return Layout((int(rows), int(columns)))

    def predict(self, x: Tensor, timesteps: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        rows, columns = (side // self.packing for side in x.shape[2:])
        found = self.model(
            hidden_states=pack(x, self.packing),
            encoder_hidden_states=text["states"],  # (B, S, E)
            encoder_hidden_states_mask=text["mask"],  # (B, S)
            timestep=timesteps,
            img_shapes=[[(1, rows, columns)]] * len(x),
            return_dict=False,
        )[0]
        return unpack(found, self.packing, size=(rows, columns))

    def restore(self) -> None:
        position = self.model.pos_embed  # its tables are no buffers, and were built without values
        with torch.device("cpu"):
            fresh = type(position)(theta=position.theta, axes_dim=position.axes_dim, scale_rope=position.scale_rope)
        position.pos_freqs, position.neg_freqs = fresh.pos_freqs, fresh.neg_freqs


QWEN_IMAGE_SIZES = {"class": QwenImage.classes[0]}
