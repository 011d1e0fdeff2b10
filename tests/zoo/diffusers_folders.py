"""Model folders of diffusers as they were published, with small sizes in the place of the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

STEM = "diffusion_pytorch_model"
# The fields of facebook/DiT-XL-2-256's transformer/config.json that the present class does not have.
DIT_LEGACY = {
    "_class_name": "Transformer2DModel", "_diffusers_version": "0.12.0.dev0", "cross_attention_dim": None,
    "num_vector_embeds": None, "only_cross_attention": False, "use_linear_projection": False,
}  # fmt: skip
# Those of PixArt-alpha/PixArt-XL-2-512x512.
PIXART_LEGACY = {
    "_class_name": "Transformer2DModel", "_diffusers_version": "0.22.0.dev0", "attention_type": "default",
    "double_self_attention": False, "num_vector_embeds": None, "only_cross_attention": False,
    "use_linear_projection": False,
}  # fmt: skip
# What EMAModel.save_pretrained adds to the config of the model that it averages.
EMA_FIELDS = {
    "decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 10_000, "power": 0.75,
    "update_after_step": 0, "use_ema_warmup": False,
}  # fmt: skip


def change_config(folder: Path, **changes: Any) -> Path:
    """``folder`` with other fields in its config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def shard(folder: Path, *, variant: str | None = None, stem: str = STEM, count: int = 2) -> Path:
    """The weights of ``folder`` in ``count`` files and an index, named as ``save_pretrained`` names them."""
    whole = folder / f"{stem}.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names, middle = sorted(tensors), "" if variant is None else f".{variant}"
    parts = {f"{stem}{middle}-0000{n + 1}-of-0000{count}.safetensors": names[n::count] for n in range(count)}
    for file, own in parts.items():
        save_file({name: tensors[name] for name in own}, folder / file, metadata={"format": "pt"})
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    places = {name: file for file, own in parts.items() for name in own}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / f"{stem}.safetensors.index{middle}.json").write_text(json.dumps(index))
    return folder


def as_variant(folder: Path, variant: str, *, suffix: str = ".safetensors", dtype: torch.dtype = torch.float16) -> Path:
    """The weights of ``folder`` as a variant alone."""
    whole = folder / f"{STEM}.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(whole).items()}
    whole.unlink()
    file = folder / f"{STEM}.{variant}{suffix}"
    if suffix == ".bin":
        torch.save(tensors, file)
    else:
        save_file(tensors, file)
    return folder


def as_hub_cache(folder: Path, cache: Path) -> Path:
    """``folder`` as the hub's client keeps it: links in a snapshot lead to blobs whose names have no suffix."""
    blobs, snapshot = cache / "blobs", cache / "snapshots" / "0123abc"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.rglob("*"))):
        if path.is_file():
            place = snapshot / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(blobs / f"{number:064x}")
            place.symlink_to(blobs / f"{number:064x}")
    return snapshot


# Folders as published -> what makes them of one that save_pretrained wrote.
LAYOUTS = {
    "a DiT as `Transformer2DModel`": DIT_LEGACY,
    "a PixArt as `Transformer2DModel`": PIXART_LEGACY,
    "`unet_ema` and `transformer_ema`": EMA_FIELDS,
    "weights in parts with an index": shard,
    "variants such as `fp16`": as_variant,
    "snapshots of the hub's cache": as_hub_cache,
}
