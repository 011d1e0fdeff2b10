"""Configs of diffusers' older model classes, as the present classes take them.

The public folders of DiT and PixArt were written when one class, ``Transformer2DModel``, was all transformers.
"""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError

_LEGACY = "Transformer2DModel"
_PRESENT = {"ada_norm_zero": "DiTTransformer2DModel", "ada_norm_single": "PixArtTransformer2DModel"}  # by norm_type
# Fields that the present classes lack, with the values under which they change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_vector_embeds": (None,),
    "only_cross_attention": (False, None),
    "double_self_attention": (False, None),
    "use_linear_projection": (False, None),
    "attention_type": ("default", None),
    "cross_attention_dim": (None,),
    "caption_channels": (None,),
}
_KEPT = {"PixArtTransformer2DModel": ("attention_type", "cross_attention_dim", "caption_channels")}


def modern_config(config: dict[str, Any], *, source: object) -> dict[str, Any]:
    """``config`` with the present class instead of ``Transformer2DModel``; any other config as it is.

    Raises:
        CheckpointError: it describes a transformer that is neither DiT nor PixArt.
    """
    if config.get("_class_name") != _LEGACY or config.get("norm_type") not in _PRESENT:
        return config
    name = _PRESENT[config["norm_type"]]
    dropped = [key for key in _NEUTRAL if key not in _KEPT.get(name, ())]
    wrong = [f"{key} {config[key]}" for key in dropped if key in config and config[key] not in _NEUTRAL[key]]
    if wrong:
        raise CheckpointError(f"{source} is a {_LEGACY} that {name} cannot be: it has {', '.join(wrong)}")
    return {**{key: value for key, value in config.items() if key not in dropped}, "_class_name": name}
