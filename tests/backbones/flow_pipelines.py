"""Tiny random pipelines of Stable Diffusion 3 and Flux, whole, as their own ``save_pretrained`` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.backbones.pipelines import randomise
from tests.backbones.text_pipelines import write_flux_text, write_sd3_text


def tiny_sd3(*, seed: int = 0, **changes: Any) -> Any:
    """A Stable Diffusion 3.5 of two blocks and 16 tokens for 8x8 latents of 16 channels."""
    from diffusers import SD3Transformer2DModel

    sizes: dict[str, Any] = {
        "sample_size": 8,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "joint_attention_dim": 96,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 24 + 40,
        "pos_embed_max_size": 12,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
    }
    return randomise(SD3Transformer2DModel(**{**sizes, **changes}), seed=seed)


def tiny_flux(*, seed: int = 0, **changes: Any) -> Any:
    """A Flux dev of two blocks of each kind, for latents of 16 channels. It has no size of its own."""
    from diffusers import FluxTransformer2DModel

    sizes: dict[str, Any] = {
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 40,
        "pooled_projection_dim": 32,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 6, 6),
    }
    return randomise(FluxTransformer2DModel(**{**sizes, **changes}), seed=seed)


def flow_vae(*, scaling: float, shift: float, seed: int = 1) -> Any:
    """A VAE of factor 8 for latents of 16 channels."""
    from diffusers import AutoencoderKL

    stages = 4
    vae = AutoencoderKL(
        block_out_channels=(8,) * stages,
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        norm_num_groups=4,
        latent_channels=16,
        scaling_factor=scaling,
        shift_factor=shift,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return randomise(vae, seed=seed)


def write_sd3_pipeline(folder: Path, *, third: bool = True, **changes: Any) -> Any:
    """A whole StableDiffusion3Pipeline; ``third``: with its T5. ``changes`` are those of the transformer."""
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    return _whole(
        StableDiffusion3Pipeline,
        write_sd3_text(folder, third=third),
        transformer=tiny_sd3(**changes),
        vae=flow_vae(scaling=1.5305, shift=0.0609),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def write_flux_pipeline(folder: Path, *, schnell: bool = False, **changes: Any) -> Any:
    """A whole FluxPipeline of dev, or of schnell. ``changes`` are those of the transformer."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    dynamic = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    return _whole(
        FluxPipeline,
        write_flux_text(folder),
        transformer=tiny_flux(**{"guidance_embeds": not schnell, **changes}),
        vae=flow_vae(scaling=0.3611, shift=0.1159),
        scheduler=FlowMatchEulerDiscreteScheduler(**({"shift": 1.0} if schnell else dynamic)),
    )


def _whole(kind: Any, folder: Path, **parts: Any) -> Any:
    """The pipeline of ``parts`` and of the text encoders in ``folder``, saved there."""
    import transformers

    index = json.loads((folder / "model_index.json").read_text())
    for name, told in index.items():
        if name.startswith(("text_encoder", "tokenizer")):
            loader = (
                transformers.AutoTokenizer
                if name.startswith("tokenizer")
                else getattr(transformers, told[1] or "", None)
            )
            parts[name] = None if told[1] is None else loader.from_pretrained(folder / name)
    pipe = kind(**parts)
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe
