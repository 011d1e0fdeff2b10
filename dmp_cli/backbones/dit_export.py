"""Write a DiT in the formats of other programs: a diffusers folder, or a ``.pt`` file with Meta's names."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError
from ..storage import safetensors_bytes, staged_folder, write_bytes, write_json
from .base import Backbone
from .dit import DiT, positions
from .dit_names import to_diffusers

_CONFIG, _WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


def write_diffusers(path: Path, backbone: Backbone) -> list[str]:
    """Write the folder that ``DiTTransformer2DModel.from_pretrained`` loads; returns remarks for its user.

    Raises:
        ConfigError: the backbone is not a DiT; or diffusers cannot express it, because it has no null class, another
            MLP width or other positions; or ``path`` holds other files.
    """
    check_convertible(backbone, path, as_diffusers=True)
    assert isinstance(backbone, DiT)
    config, tensors = _config_of(backbone), to_diffusers(backbone.state_dict(), depth=backbone.config.depth)
    if path.exists():
        _remove(path)
    with staged_folder(path) as folder:
        write_json(folder / _CONFIG, config)
        write_bytes(folder / _WEIGHTS, safetensors_bytes(tensors, {"format": "pt"}))
    if backbone.config.freq_shift == 1:
        return []
    return [
        "this backbone was trained with Meta's timestep frequencies; diffusers' DiTTransformer2DModel computes others, "
        "so its outputs differ. Read it back with --trained-with meta."
    ]


def check_convertible(backbone: Backbone, path: Path, *, as_diffusers: bool) -> None:
    """Raise as :func:`write_diffusers` and :func:`write_meta`, and write nothing."""
    if not isinstance(backbone, DiT):
        raise ConfigError(f"a {backbone.family} backbone cannot be converted; DiTs can")
    if not as_diffusers:
        return
    if backbone.schedule.flow is not None:
        raise ConfigError(
            f"diffusers' DiTTransformer2DModel is a DDPM, and this backbone is a flow ({backbone.schedule.flow})",
            hint="Write a .pt file, and name the flow with --objective where it is read.",
        )
    _check_expressible(backbone)
    if path.exists():
        _check_replaceable(path)


def write_meta(path: Path, backbone: Backbone) -> None:
    """Write a ``.pt`` file with the bare state dict under Meta's names. Raises ConfigError if it is not a DiT."""
    check_convertible(backbone, path, as_diffusers=False)
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}, buffer)
    write_bytes(path, buffer.getvalue())


def _remove(path: Path) -> None:
    """Remove a converted DiT that is to be replaced."""
    for inner in path.iterdir():
        inner.unlink()
    path.rmdir()


def _check_replaceable(path: Path) -> None:
    """Raise ConfigError if ``path`` holds anything else than a converted DiT."""
    if not path.is_dir() or any(inner.name not in (_CONFIG, _WEIGHTS) for inner in path.iterdir()):
        raise ConfigError(f"{path} holds other things than a converted DiT", hint="Give another path with -o.")


def _check_expressible(backbone: DiT) -> None:
    """Raise ConfigError if diffusers' DiT class cannot express ``backbone``."""
    config = backbone.config
    if not config.null_row:
        raise ConfigError(
            f"diffusers cannot express this DiT: it has {config.num_classes} classes and no null class",
            hint="Convert it to a .pt instead.",
        )
    if config.mlp_size != 4 * config.hidden_size:
        raise ConfigError("diffusers cannot express this DiT: its MLP is not four times as wide as its blocks")
    if not torch.allclose(backbone.pos_embed.cpu(), positions(config)[None], atol=1e-6):
        raise ConfigError("diffusers cannot express this DiT: its positions are not the usual ones")


def _config_of(backbone: DiT) -> dict[str, Any]:
    config = backbone.config
    return {
        "_class_name": "DiTTransformer2DModel",
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "attention_head_dim": config.hidden_size // config.num_heads,
        "in_channels": config.in_channels,
        "norm_elementwise_affine": False,
        "norm_eps": config.mlp_norm_eps,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": config.num_heads,
        "num_embeds_ada_norm": config.num_classes,
        "num_layers": config.depth,
        "out_channels": backbone.out_channels,
        "patch_size": config.patch_size,
        "sample_size": config.input_size,
        "upcast_attention": False,
    }
