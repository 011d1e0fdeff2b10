"""Original single-file checkpoints of Stable Diffusion 1.x and 2.x: U-Net, VAE and text encoder in one file.

Names are converted by diffusers' own code. Sizes follow from the shapes, so nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..storage import ORIGINAL_UNET, Weights

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_VAE_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."  # of 1.x and 2.x
_HEAD_WIDTH = 64  # of 2.x; 1.x has 8 heads everywhere
_SIDE = 64  # latent pixels of a 512-pixel image; the file does not say the size
# As configs/stable-diffusion/v1-inference.yaml, and as diffusers samples from it.
_SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip


def converted(weights: Weights) -> Weights:
    """``weights`` under diffusers' names, if they are an original Stable Diffusion; any others as they are.

    Raises:
        CheckpointError: it is another model of that layout, such as Stable Diffusion XL, or of another noise schedule.
    """
    if weights.config is not None or not any(name.startswith(ORIGINAL_UNET) for name in weights.tensors):
        return weights
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    own = _averaged(weights.tensors)
    config = _unet_config(own, weights.path)
    _check_noise(weights.tensors, weights.path)
    parts = {"vae": _VAE, "clip": CLIP, "open_clip": OPEN_CLIP}
    holds = tuple(part for part, prefix in parts.items() if any(name.startswith(prefix) for name in weights.tensors))
    # Nothing tells whether a 2.x predicts noise or v; a 1.x predicts noise, unless an option says otherwise.
    scheduler = {**_SCHEDULER, "prediction_type": None if config.get("use_linear_projection") else "epsilon"}
    tensors = convert_ldm_unet_checkpoint(own, config)
    return replace(weights, tensors=tensors, config=config, scheduler=scheduler, holds=holds)


def vae_of(tensors: Mapping[str, Tensor], *, source: object) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the tensors, under diffusers' names, of the VAE in an original file, which may hold it alone.

    Raises:
        CheckpointError: there is none.
    """
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    own = {name: tensor for name, tensor in tensors.items() if name.startswith(_VAE)}
    own = own or {_VAE + name: tensor for name, tensor in tensors.items() if name.startswith(_VAE_PARTS)}
    needed = [_VAE + name for name in ("encoder.conv_in.weight", "decoder.conv_out.weight", "quant_conv.weight")]
    if not own.keys() >= set(needed):
        raise CheckpointError(f"{source} holds no VAE of Stable Diffusion", hint="Give a VAE's folder with --vae.")
    stages = _count(own, _VAE + "encoder.down.{}.block.0.conv1.weight")
    widths = [len(own[f"{_VAE}encoder.down.{stage}.block.0.conv1.weight"]) for stage in range(stages)]
    config = {
        "in_channels": own[_VAE + "encoder.conv_in.weight"].shape[1],
        "out_channels": own[_VAE + "decoder.conv_out.weight"].shape[0],
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * stages,
        "up_block_types": ["UpDecoderBlock2D"] * stages,
        "layers_per_block": _count(own, _VAE + "encoder.down.0.block.{}.conv1.weight"),
        "latent_channels": len(own[_VAE + "quant_conv.weight"]) // 2,
        "scaling_factor": 0.18215,
    }
    return config, convert_ldm_vae_checkpoint(own, config)


def _averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the U-Net: their average where the file has one, under flat names without dots."""
    return {
        name: tensors.get("model_ema." + "".join(name.split(".")[1:]), tensor)
        for name, tensor in tensors.items()
        if name.startswith(_UNET)
    }


def _count(tensors: Mapping[str, Tensor], name: str) -> int:
    """How many numbers from 0 on may stand in the place of ``{}``."""
    count = 0
    while name.format(count) in tensors:
        count += 1
    return count


def _unet_config(tensors: Mapping[str, Tensor], path: object) -> dict[str, Any]:
    """The config of ``UNet2DConditionModel`` for an original U-Net, from its shapes."""
    names = {name.removeprefix(_UNET): tensor for name, tensor in tensors.items()}
    if any(name.startswith("label_emb.") for name in names):
        raise CheckpointError(f"{path} is an unsupported U-Net: it has further conditions, as in Stable Diffusion XL")
    downs = sorted(int(name.split(".")[1]) for name in names if name.endswith(".0.op.weight"))
    layers, stages = (downs[0] if downs else 3) - 1, len(downs) + 1
    first = [1 + stage * (layers + 1) for stage in range(stages)]
    crossed = [f"input_blocks.{number}.1.transformer_blocks.0.attn2.to_k.weight" in names for number in first]
    attention = next((name for name in names if name.endswith("attn2.to_k.weight")), None)
    if attention is None or "out.2.weight" not in names:
        raise CheckpointError(f"{path} is an unsupported U-Net: it reads no text")
    widths = [len(names[f"input_blocks.{number}.0.out_layers.3.weight"]) for number in first]
    linear = names["middle_block.1.proj_in.weight"].dim() == 2
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": _SIDE,
        "in_channels": names["input_blocks.0.0.weight"].shape[1],
        "out_channels": len(names["out.2.weight"]),
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if read else "DownBlock2D" for read in crossed],
        "up_block_types": ["CrossAttnUpBlock2D" if read else "UpBlock2D" for read in reversed(crossed)],
        "cross_attention_dim": names[attention].shape[1],
        "use_linear_projection": linear,
        "attention_head_dim": [width // _HEAD_WIDTH for width in widths] if linear else 8,
    }


def _check_noise(tensors: Mapping[str, Tensor], path: object) -> None:
    """Raise CheckpointError if the file keeps a noise schedule, and it is not Stable Diffusion's."""
    kept = tensors.get("alphas_cumprod")
    if kept is None:
        return
    start, end = _SCHEDULER["beta_start"] ** 0.5, _SCHEDULER["beta_end"] ** 0.5
    betas = torch.linspace(start, end, _SCHEDULER["num_train_timesteps"], dtype=torch.float64).square()
    expected = (1 - betas).cumprod(0)
    if kept.shape != expected.shape or not torch.allclose(kept.double(), expected, atol=1e-3):
        raise CheckpointError(f"{path} keeps another noise schedule than Stable Diffusion's, which is not supported")
