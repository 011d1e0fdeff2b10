"""Tiny random pipelines of families whose blocks are given image and text as one sequence: AuraFlow and Lumina 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.backbones.flow_pipelines import flow_vae
from tests.backbones.pipelines import randomise
from tests.backbones.text_encoders import write_gemma, write_t5


def write_auraflow_pipeline(folder: Path, **changes: Any) -> Any:
    """A whole AuraFlowPipeline of two blocks of each kind, for 8x8 latents; ``changes`` of the transformer."""
    from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler
    from transformers import AutoTokenizer, UMT5EncoderModel

    write_t5(folder, width=40, kind="UMT5")
    sizes: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 16,
        "out_channels": 16,
        "num_mmdit_layers": 2,
        "num_single_dit_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "joint_attention_dim": 40,
        "caption_projection_dim": 32,
        "pos_embed_max_size": 256,
    }
    pipe = AuraFlowPipeline(
        transformer=randomise(AuraFlowTransformer2DModel(**{**sizes, **changes}), seed=0),
        vae=flow_vae(scaling=0.13025, shift=0.0),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=UMT5EncoderModel.from_pretrained(folder / "text_encoder"),
    )
    return _saved(pipe, folder)


def write_lumina2_pipeline(folder: Path, **changes: Any) -> Any:
    """A whole Lumina2Pipeline of two blocks of each kind, for 8x8 latents. ``changes`` are those of the transformer."""
    from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel
    from transformers import AutoTokenizer, Gemma2Model

    write_gemma(folder)
    sizes: dict[str, Any] = {
        "sample_size": 8,
        "hidden_size": 48,
        "num_layers": 2,
        "num_refiner_layers": 2,
        "num_attention_heads": 2,
        "num_kv_heads": 1,
        "multiple_of": 16,
        "axes_dim_rope": (8, 8, 8),
        "axes_lens": (300, 64, 64),
        "cap_feat_dim": 32,
    }
    pipe = Lumina2Pipeline(
        transformer=randomise(Lumina2Transformer2DModel(**{**sizes, **changes}), seed=0),
        vae=flow_vae(scaling=0.3611, shift=0.1159),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=Gemma2Model.from_pretrained(folder / "text_encoder"),
    )
    return _saved(pipe, folder)


def _saved(pipe: Any, folder: Path) -> Any:
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe
