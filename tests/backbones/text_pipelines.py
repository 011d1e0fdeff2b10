"""The text parts of tiny pipelines of SD3 and Flux: tokenizers, text encoders, and their lines of model_index.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.backbones.text_encoders import filled, write_clip, write_projected_clip, write_t5


def write_sd3_text(folder: Path, *, third: bool = True) -> Path:
    """The three text encoders of SD3: widths 32 (projection 24), 48 (projection 40) and 96; ``third``: with the T5."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    write_projected_clip(write_clip(folder), projection=40)
    first = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    config = CLIPTextConfig(**{**first.to_dict(), "projection_dim": 24})
    shutil.rmtree(folder / "text_encoder")
    filled(CLIPTextModelWithProjection(config), seed=3).save_pretrained(folder / "text_encoder")
    if third:
        write_t5(folder, seed=2, width=96, suffix="_3")
    return _note(
        folder,
        "StableDiffusion3Pipeline",
        {
            "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_3": ["transformers", "T5EncoderModel"] if third else [None, None],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "tokenizer_3": ["transformers", "PreTrainedTokenizerFast"] if third else [None, None],
        },
    )


def write_flux_text(folder: Path) -> Path:
    """The two text encoders of Flux: a CLIP of width 32, whose pooled states are read, and a T5 of width 40."""
    write_t5(write_clip(folder), seed=2, width=40, suffix="_2")
    return _note(
        folder,
        "FluxPipeline",
        {
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "PreTrainedTokenizerFast"],
        },
    )


def _note(folder: Path, name: str, parts: dict[str, Any]) -> Path:
    """Add the parts to the folder's model_index.json, or begin it."""
    file = folder / "model_index.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({"_class_name": name, **known, **parts}))
    return folder
