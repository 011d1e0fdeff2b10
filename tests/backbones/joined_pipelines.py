"""Tiny random pipelines of AuraFlow, Lumina 2, Sana, Z-Image, Qwen-Image, CogView4 and Hunyuan-DiT."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from tests.backbones.flow_pipelines import flow_vae
from tests.backbones.pipelines import randomise
from tests.backbones.text_encoders import write_bert, write_gemma, write_glm, write_qwen, write_qwen_vl, write_t5


def qwen_is_old() -> bool:
    """Whether this diffusers is too old for a Qwen-Image, as dmp says then."""
    from diffusers import QwenImageTransformer2DModel

    return "txt_seq_lens" in inspect.signature(QwenImageTransformer2DModel.forward).parameters


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


def write_sana_pipeline(folder: Path, **changes: Any) -> Any:
    """A whole SanaPipeline of two blocks, for 4x4 latents of a VAE of factor 32; ``changes`` of the transformer."""
    from diffusers import DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
    from transformers import AutoTokenizer, Gemma2Model

    write_gemma(folder)
    sizes: dict[str, Any] = {
        "sample_size": 4,
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "num_layers": 2,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 16,
        "cross_attention_dim": 32,
        "caption_channels": 32,
    }
    solver = {"flow_shift": 3.0, "use_flow_sigmas": True, "prediction_type": "flow_prediction", "solver_order": 2}
    pipe = SanaPipeline(
        transformer=randomise(SanaTransformer2DModel(**{**sizes, **changes}), seed=0),
        vae=deep_vae(),
        scheduler=DPMSolverMultistepScheduler(**solver),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=Gemma2Model.from_pretrained(folder / "text_encoder"),
    )
    return _saved(pipe, folder)


def write_zimage_pipeline(folder: Path, **changes: Any) -> Any:
    """A whole ZImagePipeline of two blocks of each kind; ``changes`` are those of the transformer."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import AutoTokenizer, Qwen3Model

    write_qwen(folder)
    sizes: dict[str, Any] = {
        "dim": 48,
        "n_layers": 2,
        "n_refiner_layers": 2,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 32,
        "axes_dims": [8, 8, 8],
        "axes_lens": [1024, 64, 64],
    }
    pipe = ZImagePipeline(
        transformer=randomise(ZImageTransformer2DModel(**{**sizes, **changes}), seed=0),
        vae=flow_vae(scaling=0.3611, shift=0.1159),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=Qwen3Model.from_pretrained(folder / "text_encoder"),
    )
    return _saved(pipe, folder)


def write_qwen_pipeline(folder: Path, **changes: Any) -> Any:
    """A whole QwenImagePipeline of two blocks; ``changes`` are those of the transformer."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    write_qwen_vl(folder)
    sizes: dict[str, Any] = {
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "axes_dims_rope": (4, 6, 6),
    }
    levels = {"base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02}
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    pipe = QwenImagePipeline(
        transformer=randomise(QwenImageTransformer2DModel(**{**sizes, **changes}), seed=0),
        vae=randomise(vae, seed=1),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=True, **levels),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "text_encoder"),
    )
    return _saved(pipe, folder)


def write_cogview4_pipeline(folder: Path, **changes: Any) -> Any:
    """A whole CogView4Pipeline of two blocks, for 8x8 latents; ``changes`` are those of the transformer."""
    from diffusers import CogView4Pipeline, CogView4Transformer2DModel, FlowMatchEulerDiscreteScheduler
    from transformers import AutoTokenizer, GlmModel

    write_glm(folder)
    sizes: dict[str, Any] = {
        "sample_size": 8,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "text_embed_dim": 32,
        "time_embed_dim": 24,
        "condition_dim": 8,
        "rope_axes_dim": (16, 16),
    }
    levels = {"base_shift": 0.25, "max_shift": 0.75, "base_image_seq_len": 256, "time_shift_type": "linear"}
    pipe = CogView4Pipeline(
        transformer=randomise(CogView4Transformer2DModel(**{**sizes, **changes}), seed=0),
        vae=flow_vae(scaling=1.0, shift=0.0),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **levels),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=GlmModel.from_pretrained(folder / "text_encoder"),
    )
    return _saved(pipe, folder)


def deep_vae() -> Any:
    """An AutoencoderDC of factor 32 for latents of 4 channels."""
    from diffusers import AutoencoderDC

    blocks = ("ResBlock",) * 4 + ("EfficientViTBlock",) * 2
    sides: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        sides |= {
            f"{side}_block_out_channels": (8, 8, 8, 8, 16, 16),
            f"{side}_block_types": blocks,
            f"{side}_qkv_multiscales": ((),) * 4 + ((5,), (5,)),
            f"{side}_layers_per_block": (1,) * 6,
        }
    vae = AutoencoderDC(
        **sides,
        latent_channels=4,
        attention_head_dim=2,
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    return randomise(vae, seed=1)


def write_hunyuan_pipeline(folder: Path, *, style: bool = True) -> Any:
    """A whole HunyuanDiTPipeline of six blocks, for 8x8 latents; ``style``: until version 1.1."""
    from diffusers import DDIMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline
    from transformers import AutoTokenizer, BertModel, T5EncoderModel

    write_t5(write_bert(folder), width=40, suffix="_2")
    model = HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=32,
        num_layers=6,
        cross_attention_dim=32,
        cross_attention_dim_t5=40,
        pooled_projection_dim=16,
        use_style_cond_and_image_meta_size=style,
    )
    noise = {"beta_start": 0.00085, "beta_end": 0.03, "beta_schedule": "scaled_linear", "steps_offset": 1}
    pipe = HunyuanDiTPipeline(
        transformer=randomise(model, seed=0),
        vae=kl_vae(),
        scheduler=DDIMScheduler(**noise, prediction_type="v_prediction", clip_sample=False),
        text_encoder=BertModel.from_pretrained(folder / "text_encoder"),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder_2=T5EncoderModel.from_pretrained(folder / "text_encoder_2"),
        tokenizer_2=AutoTokenizer.from_pretrained(folder / "tokenizer_2"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _saved(pipe, folder)


def kl_vae() -> Any:
    """An AutoencoderKL of factor 8 for latents of 4 channels."""
    from diffusers import AutoencoderKL

    stages = {"block_out_channels": (8,) * 4, "down_block_types": ("DownEncoderBlock2D",) * 4, "norm_num_groups": 4}
    vae = AutoencoderKL(**stages, up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, scaling_factor=0.13025)
    return randomise(vae, seed=1)


def _saved(pipe: Any, folder: Path) -> Any:
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe
