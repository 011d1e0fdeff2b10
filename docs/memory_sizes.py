"""Public sizes that no name of dmp stands for, as the configs of their transformers say them, and their parameters.

A size whose parameters are not as many as those of the public weights is not the public one.
"""

from __future__ import annotations

from typing import Any

_HUNYUAN: dict[str, Any] = {
    "_class_name": "HunyuanDiT2DModel",
    "num_attention_heads": 16,
    "attention_head_dim": 88,
    "in_channels": 4,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "sample_size": 128,
    "hidden_size": 1408,
    "num_layers": 40,
    "mlp_ratio": 4.3637,
    "learn_sigma": True,
    "cross_attention_dim": 1024,
    "cross_attention_dim_t5": 2048,
    "pooled_projection_dim": 1024,
    "text_len": 77,
    "text_len_t5": 256,
}
SIZES: dict[str, tuple[int, dict[str, Any]]] = {
    "Sana 600M": (
        591_747_872,
        {
            "_class_name": "SanaTransformer2DModel",
            "num_layers": 28,
            "num_attention_heads": 36,
            "attention_head_dim": 32,
            "num_cross_attention_heads": 16,
            "cross_attention_head_dim": 72,
            "cross_attention_dim": 1152,
        },
    ),
    "Sana 1600M": (1_604_462_752, {"_class_name": "SanaTransformer2DModel"}),
    "Hunyuan-DiT 1.1": (1_516_534_048, {**_HUNYUAN, "use_style_cond_and_image_meta_size": True}),
    "Hunyuan-DiT 1.2": (1_499_952_032, {**_HUNYUAN, "use_style_cond_and_image_meta_size": False}),
    "Lumina 2": (
        2_609_769_152,
        {
            "_class_name": "Lumina2Transformer2DModel",
            "cap_feat_dim": 2304,
            "axes_dim_rope": [32, 32, 32],
            "axes_lens": [300, 512, 512],
        },
    ),
    "AuraFlow": (6_833_439_744, {"_class_name": "AuraFlowTransformer2DModel", "sample_size": 128}),
    "Z-Image": (6_154_908_736, {"_class_name": "ZImageTransformer2DModel"}),
    "Qwen-Image": (20_430_401_088, {"_class_name": "QwenImageTransformer2DModel"}),
}
