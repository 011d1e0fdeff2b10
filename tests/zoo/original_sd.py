"""Original single-file checkpoints of Stable Diffusion, made of small models of diffusers and transformers."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]

_UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
_UNET_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip


def small_models(version: int, *, seed: int = 0) -> tuple[Any, Any, Any]:
    """A U-Net, a VAE and a CLIP text encoder with the layout of Stable Diffusion 1 or 2."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    second = {"use_linear_projection": True, "attention_head_dim": (1, 2), "block_out_channels": (64, 128)}
    unet = UNet2DConditionModel(**{
        "sample_size": 64, "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 64,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), **(second if version == 2 else {}),
    })  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1,
    )  # fmt: skip
    config = CLIPTextConfig(
        vocab_size=54, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1,
        max_position_embeddings=16, hidden_act="quick_gelu" if version == 1 else "gelu",
    )  # fmt: skip
    source = torch.Generator().manual_seed(seed)
    models = (unet, vae, CLIPTextModel(config))
    for model in models:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=source))
        model.eval()
    return models


def _renamed(name: str, names: dict[str, str]) -> str:
    for new, old in names.items():
        name = re.sub(rf"(^|\.){re.escape(new)}\.", rf"\g<1>{old}.", name)
    return name


def unet_tensors(unet: Any) -> Tensors:
    """The original names of a U-Net's tensors."""
    layers, original = unet.config["layers_per_block"], {}
    for name, tensor in unet.state_dict().items():
        kind, _, rest = name.partition(".")
        found = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
        if found:
            way, block, part, layer, inner = found[1], int(found[2]), found[3], int(found[4]), found[5]
            number = block * (layers + 1) + layer + (way == "down")
            place = f"{'input' if way == 'down' else 'output'}_blocks.{number}"
            if part == "downsamplers":
                new = f"input_blocks.{(block + 1) * (layers + 1)}.0.op.{inner.removeprefix('conv.')}"
            elif part == "upsamplers":
                crossed = "CrossAttn" in unet.config["up_block_types"][block]
                new = f"output_blocks.{block * (layers + 1) + layers}.{1 + crossed}.{inner}"
            else:
                new = f"{place}.0.{_renamed(inner, _UNET_RESNET)}" if part == "resnets" else f"{place}.1.{inner}"
        elif kind == "mid_block":
            part, layer, inner = rest.split(".", 2)
            number = 1 if part == "attentions" else 2 * int(layer)
            new = f"middle_block.{number}.{inner if part == 'attentions' else _renamed(inner, _UNET_RESNET)}"
        else:
            new = _renamed(name, _UNET_TOP)
        original[f"model.diffusion_model.{new}"] = tensor.clone()
    return original


def vae_tensors(vae: Any) -> Tensors:
    """The original names of a VAE's tensors; its attention layers are convolutions there."""
    stages, original = len(vae.config["block_out_channels"]), {}
    for name, tensor in vae.state_dict().items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{stages - 1 - int(m[1])}.block.", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f"up.{stages - 1 - int(m[1])}.upsample.", new)
        new = re.sub(r"mid_block\.resnets\.(\d+)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", new)
        if "mid_block.attentions.0" in new:
            new = _renamed(new.replace("mid_block.attentions.0", "mid.attn_1"), _VAE_ATTENTION)
            tensor = tensor[:, :, None, None] if tensor.dim() == 2 else tensor
        original[f"first_stage_model.{new}"] = tensor.clone()
    return original


def clip_tensors(text: Any) -> Tensors:
    """The text encoder of Stable Diffusion 1, under the names of transformers before version 5."""
    prefix = "cond_stage_model.transformer.text_model."
    found = {prefix + name.removeprefix("text_model."): t.clone() for name, t in text.state_dict().items()}
    return {**found, f"{prefix}embeddings.position_ids": torch.arange(16)[None]}


def open_clip_tensors(text: Any) -> Tensors:
    """The text encoder of Stable Diffusion 2, under OpenCLIP's names, with a last layer that is never read."""
    own = {name.removeprefix("text_model."): tensor.clone() for name, tensor in text.state_dict().items()}
    prefix, found = "cond_stage_model.model.", {}
    found["token_embedding.weight"] = own.pop("embeddings.token_embedding.weight")
    found["positional_embedding"] = own.pop("embeddings.position_embedding.weight")
    for kind in ("weight", "bias"):
        found[f"ln_final.{kind}"] = own.pop(f"final_layer_norm.{kind}")
    layers = text.config.num_hidden_layers
    for layer in range(layers + 1):  # the last one repeats the one before
        before, after = f"encoder.layers.{min(layer, layers - 1)}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            parts = [own[f"{before}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            found[f"{after}attn.in_proj_{kind}"] = torch.cat(parts)
        for name, tensor in own.items():
            if name.startswith(before) and not re.search(r"[qkv]_proj", name):
                found[after + _renamed(name.removeprefix(before), _OPEN_CLIP)] = tensor.clone()
    width = found["positional_embedding"].shape[1]
    found |= {"text_projection": torch.eye(width), "logit_scale": torch.tensor(4.6)}
    return {prefix + name: tensor for name, tensor in found.items()}


def with_average(tensors: Tensors) -> Tensors:
    """``tensors`` as the average, under flat names, of a U-Net whose own weights are others."""
    prefix, flat = (
        "model.diffusion_model.",
        {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(9)},
    )
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            flat["model_ema." + "".join(name.split(".")[1:])] = tensor
            flat[name] = tensor + 1
    return {**tensors, **flat}


def noise_buffers() -> Tensors:
    """What LatentDiffusion registers of its schedule."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    kept = (1 - betas).cumprod(0)
    return {"betas": betas.float(), "alphas_cumprod": kept.float(), "sqrt_alphas_cumprod": kept.sqrt().float()}


# Single files of the original code -> the builder of what differs in them.
LAYOUTS = {"1.x": clip_tensors, "2.x": open_clip_tensors, "with its average": with_average}
