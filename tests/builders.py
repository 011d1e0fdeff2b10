"""Tiny real things for tests: backbones with weights that matter, checkpoints, image folders."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from dmp_cli.backbones.base import Backbone
from dmp_cli.backbones.dit import DiT, DiTConfig
from dmp_cli.config import CodecRecord, PatchConfig
from dmp_cli.patching.attachment import create_patch
from dmp_cli.patching.prompts import Patch

TINY = {
    "input_size": 8,
    "patch_size": 2,
    "in_channels": 3,
    "hidden_size": 16,
    "depth": 3,
    "num_heads": 2,
    "mlp_size": 32,
    "num_classes": 4,
    "null_row": True,
    "learn_sigma": True,
}


TOLD = {"num_classes": 4, "num_heads": 2}  # what the shapes of a tiny DiT cannot tell
PIXELS = CodecRecord()


def tiny_dit(*, seed: int = 0, **changes: Any) -> DiT:
    """A DiT of some thousand weights, none of them zero, so that every part shows in its output."""
    backbone = DiT(DiTConfig(**{**TINY, **changes}))
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if name != "pos_embed":
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=source))
    return backbone.eval()


def zero_patch(backbone: Backbone, **variant: Any) -> Patch:
    """A fresh patch in pixel space; ``variant`` are fields of PatchConfig."""
    size = backbone.sample_shape[1]
    return create_patch(backbone, PatchConfig(**variant), codec=CodecRecord(), image_size=size)


def filled_patch(backbone: Backbone, *, seed: int = 0, **variant: Any) -> Patch:
    """A patch as training might leave it: prompts of about 1, and a gate that is far from uniform."""
    patch = zero_patch(backbone, **variant)
    source = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for parameter in patch.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source))
    return patch


def call_of(backbone: Backbone, *, count: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
    """Arguments of one forward: noise, timesteps from both ends and between, and classes, the null one among them."""
    source = torch.Generator().manual_seed(2000 + seed)
    x = torch.randn(count, *backbone.sample_shape, generator=source)
    timesteps = torch.tensor([0, 999, *torch.randint(1000, (count,), generator=source).tolist()])[:count]
    rows = backbone.num_classes + backbone.has_null
    return x, timesteps, (torch.arange(count) + rows - 1) % rows if rows else None


def write_meta_checkpoint(path: Path, backbone: DiT, *, wrap: str | None = "ema", prefix: str = "") -> Path:
    """A training checkpoint as Meta's DiT code leaves it: weights under ``wrap`` (None: bare)."""
    weights = {prefix + name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    torch.save(weights if wrap is None else {wrap: weights}, path)
    return path


def authors_patch(backbone: DiT, *, seed: int = 0) -> dict[str, Tensor]:
    """What the authors' training adds to a DiT's tensors, under their names, as training might leave it."""
    blocks, source = backbone.list_blocks(), torch.Generator().manual_seed(3000 + seed)
    count, width = blocks[0].hidden_shape
    shapes = {
        "prompt_embeddings": (len(blocks), count, width),
        "gate.weight": (count, width + 1),
        "gate.bias": (count,),
        "w_noise": (width, count),
    }
    return {name: torch.randn(shape, generator=source) for name, shape in shapes.items()}


def write_authors_checkpoint(path: Path, tensors: dict[str, Tensor], *, prefix: str = "") -> Path:
    """A training checkpoint as the authors' code leaves it, its config pickled as OmegaConf's, which is not there."""
    module = types.ModuleType("omegaconf.dictconfig")
    kind = type("DictConfig", (), {"__module__": module.__name__})
    vars(module)["DictConfig"] = kind
    config = kind()
    vars(config)["_content"] = {"model": "DiT-B/2"}
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]}
    model = {prefix + name: tensor for name, tensor in tensors.items()}
    with mock.patch.dict(sys.modules, {"omegaconf": types.ModuleType("omegaconf"), module.__name__: module}):
        torch.save({"model": model, "opt": optimizer, "config": config}, path)
    return path


def write_weights(path: Path, tensors: dict[str, Tensor]) -> str:
    """Tensors by name as a safetensors file or a torch pickle, by the suffix of ``path``."""
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return str(path)


def diffusers_dit(**changes: Any) -> Any:
    """A random DiT of diffusers whose blocks share their embedders, as a conversion of Meta's weights does."""
    from diffusers import DiTTransformer2DModel

    sizes: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 3, "norm_num_groups": 1}
    sizes |= {"in_channels": 3, "out_channels": 6, "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 4}
    model = DiTTransformer2DModel(**{**sizes, **changes}).eval()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=source))
        for block in model.transformer_blocks[1:]:
            block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    return model


def write_images(folder: Path, *, count: int = 8, size: int = 8, classes: int = 4, seed: int = 0) -> Path:
    """``count`` random RGB PNGs spread over ``classes`` sub-folders (0: flat)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        place = folder / str(index % classes) if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index:04d}.png")
    return folder


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two modules hold the same tensors under the same names, bit for bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
