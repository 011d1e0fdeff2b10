"""Image encoders from the library transformers as feature networks: CLIP, used as clean-fid does, and DINOv2.

Letters: B images in a batch, d features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..errors import MetricError
from ..storage import reason_of, sha256_of, transformers_for

_SIDE = 224  # pixels that both networks take
_MODELS = {"clip": "CLIPVisionModelWithProjection", "dinov2": "Dinov2Model"}
_HUB_NAMES = {"clip": "openai/clip-vit-base-patch32", "dinov2": "facebook/dinov2-large"}
# Mean and standard deviation per channel of the pixels that each network was trained on.
_PIXEL_STATISTICS = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "dinov2": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


class Vision(NamedTuple):
    """A loaded image encoder."""

    network: Callable[[torch.Tensor], torch.Tensor]  # (B, 3, 224, 224) -> (B, d)
    width: int  # d
    digest: str  # SHA-256 of its weights


def load_vision(name: str, folder: Path | None, *, device: str) -> Vision:
    """Load the network ``clip`` or ``dinov2`` from a folder that the library transformers saved.

    The network maps float32 (B, 3, 224, 224) in [0, 255] to (B, d): CLIP to its projected image embedding, DINOv2 to
    its normalised class token. Nothing is downloaded.

    Raises:
        MetricError: no folder is given, or it holds no readable weights of this network.
        ConfigError: transformers is not installed.
    """
    hint = f"Give the folder of {_HUB_NAMES[name]} (config.json, model.safetensors) with --feature-weights."
    if folder is None:
        raise MetricError(f"features {name} need weights, but none are given", hint=hint)
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise MetricError(f"there are no .safetensors weights in {folder}", hint=hint)
    with transformers_for(f"features {name} need") as transformers:
        try:
            model, report = getattr(transformers, _MODELS[name]).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
            )
        except Exception as error:
            raise MetricError(f"the weights in {folder} cannot be read: {reason_of(error)}", hint=hint) from error
    if missing := sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])}):
        raise MetricError(f"{folder} holds no {name} image encoder: it lacks {', '.join(missing[:3])}", hint=hint)
    width = model.config.projection_dim if name == "clip" else model.config.hidden_size
    return Vision(_network(name, model.to(device).eval().requires_grad_(False)), width, _digest(files))


def _digest(files: list[Path]) -> str:
    """SHA-256 of a single file; for several, SHA-256 over their digests in the order of their names."""
    if len(files) == 1:
        return sha256_of(files[0])
    return hashlib.sha256("".join(sha256_of(file) for file in files).encode()).hexdigest()


def _network(name: str, model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def embed(images: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in _PIXEL_STATISTICS[name])
        output = model(pixel_values=(images / 255 - mean) / std)
        return output.image_embeds if name == "clip" else output.pooler_output

    return embed


def square_resize(image: np.ndarray) -> np.ndarray:
    """Resize the shorter side to 224 with bicubic filtering, then crop the central square.

    Maps uint8 (H, W, 3) to float32 (3, 224, 224) in [0, 255]. The pixels equal those of ``img_preprocess_clip`` in
    clean-fid.
    """
    picture = Image.fromarray(image)
    shorter = min(picture.size)
    picture = picture.resize([_SIDE * side // shorter for side in picture.size], Image.Resampling.BICUBIC)
    left, top = (round((side - _SIDE) / 2) for side in picture.size)
    cut = np.asarray(picture.crop((left, top, left + _SIDE, top + _SIDE)))
    return np.ascontiguousarray(cut.transpose(2, 0, 1).astype(np.float32))
