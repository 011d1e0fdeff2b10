"""How the pipelines of diffusers encode captions: one entry a pipeline, read by ``text_pipeline``.

An entry says which text encoders there are, how the pipeline's ``encode_prompt`` is called, what each of its returns is
called here, and what the null condition is. A new pipeline gets one entry, and its name in ``TextRecord.kind``.

Of one caption, by name: ``states`` (1, S, E), ``mask`` (1, S) where the pipeline gives one, ``pooled`` (1, P).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor

from ..config import TextKindName
from ..errors import CheckpointError

# The classes of transformers that a text encoder may be of.
CLIP, PROJECTED, T5 = "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"
UMT5, GEMMA2, BERT, QWEN3 = "UMT5EncoderModel", "Gemma2Model", "BertModel", "Qwen3Model"
GLM = "GlmModel"
QWEN_VL = "Qwen2_5_VLForConditionalGeneration"


class Call(NamedTuple):
    """One call of ``encode_prompt``."""

    returns: tuple[str | None, ...]  # what its returns are called, in their order; None: not read
    given: Mapping[str, Any] = {}  # what it is called with besides the caption, the device and the length
    defaults: tuple[str, ...] = ()  # arguments that get the default that the pipeline's own call gives them


class Told(NamedTuple):
    """What one of several encoders gives: a return, or a part of it that lies beside those of others."""

    name: str  # of the return
    width: str | None = None  # the field of the encoder's config that says how much of its width; None: all of it
    is_behind: bool = False  # whether it is the last tokens, as many as max_sequence_length


class TextKind(NamedTuple):
    """How one pipeline encodes captions."""

    name: TextKindName
    pipeline: str  # its class in diffusers
    encoders: Mapping[str, str]  # the class of each text encoder, by its folder, in the order of their tokenizers
    calls: tuple[Call, ...]  # usually one; what they return is put together
    length: int | None = None  # the default of max_sequence_length; None: encode_prompt takes no length
    optional: frozenset[str] = frozenset()  # encoders without which the pipeline works too
    null: Literal["encoded", "zeros"] | tuple[Call, ...] = "encoded"  # the empty caption; or other calls for it
    null_flag: str | None = None  # entry of model_index.json: where it is false, zeros are not the null condition
    options: Mapping[str, Any] = {}  # of the pipeline itself
    # By name of a return: the part of the pipeline, and the field of its config, that says its width E or P.
    widths: Mapping[str, tuple[str, str]] = {}
    finish: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None  # what is still to be done with the returns
    templates: tuple[str, ...] = ()  # attributes of the pipeline with words that it puts around a caption
    told: Mapping[str, tuple[Told, ...]] = {}  # of several encoders: what each gives, in the order of the widths
    version: int = 1  # of this entry: raised when it gives other numbers for the same caption


_UNGUIDED = {"do_classifier_free_guidance": False}
_OF_TRANSFORMER = {"states": ("transformer", "joint_attention_dim"), "pooled": ("transformer", "pooled_projection_dim")}

KINDS = (
    TextKind(
        name="sdxl",
        pipeline="StableDiffusionXLPipeline",
        encoders={"text_encoder": CLIP, "text_encoder_2": PROJECTED},
        calls=(Call(("states", None, "pooled", None), _UNGUIDED),),
        null="zeros",
        null_flag="force_zeros_for_empty_prompt",
        options={"add_watermarker": False},
        widths={"states": ("unet", "cross_attention_dim")},
        told={
            "text_encoder": (Told("states", "hidden_size"),),
            "text_encoder_2": (Told("states", "hidden_size"), Told("pooled")),
        },
    ),
    TextKind(
        name="sd3",
        pipeline="StableDiffusion3Pipeline",
        encoders={"text_encoder": PROJECTED, "text_encoder_2": PROJECTED, "text_encoder_3": T5},
        calls=(Call(("states", None, "pooled", None), {"prompt_2": None, "prompt_3": None, **_UNGUIDED}),),
        length=256,
        optional=frozenset({"text_encoder_3"}),  # its states are zeros then
        widths=_OF_TRANSFORMER,
        told={
            "text_encoder": (Told("states", "hidden_size"), Told("pooled", "projection_dim")),
            "text_encoder_2": (Told("states", "hidden_size"), Told("pooled", "projection_dim")),
            "text_encoder_3": (Told("states", is_behind=True),),
        },
    ),
    TextKind(
        name="flux",
        pipeline="FluxPipeline",
        encoders={"text_encoder": CLIP, "text_encoder_2": T5},
        calls=(Call(("states", "pooled", None), {"prompt_2": None}),),
        length=512,
        widths=_OF_TRANSFORMER,
        told={"text_encoder": (Told("pooled"),), "text_encoder_2": (Told("states"),)},
    ),
    TextKind(
        name="auraflow",
        pipeline="AuraFlowPipeline",
        encoders={"text_encoder": UMT5},
        calls=(Call(("states", None, None, None), _UNGUIDED),),  # zeros where padded: the transformer reads no mask
        length=256,
        widths={"states": ("transformer", "joint_attention_dim")},
    ),
    TextKind(
        name="lumina2",
        pipeline="Lumina2Pipeline",
        encoders={"text_encoder": GEMMA2},
        calls=(Call(("states", "mask", None, None), _UNGUIDED),),  # behind the pipeline's own system prompt
        length=256,
        null=(Call((None, None, "states", "mask"), {"do_classifier_free_guidance": True}),),  # without it
        widths={"states": ("transformer", "cap_feat_dim")},
        templates=("system_prompt",),
    ),
    TextKind(
        name="sana",
        pipeline="SanaPipeline",
        encoders={"text_encoder": GEMMA2},
        calls=(Call(("states", "mask", None, None), _UNGUIDED, ("complex_human_instruction",)),),
        length=300,
        null=(Call(("states", "mask", None, None), {"complex_human_instruction": None, **_UNGUIDED}),),
        widths={"states": ("transformer", "caption_channels")},
    ),
    TextKind(
        name="zimage",
        pipeline="ZImagePipeline",
        encoders={"text_encoder": QWEN3},
        calls=(Call(("states", None), _UNGUIDED),),  # through the tokenizer's own chat template
        length=512,
        widths={"states": ("transformer", "cap_feat_dim")},
    ),
    TextKind(
        name="qwenimage",
        pipeline="QwenImagePipeline",
        encoders={"text_encoder": QWEN_VL},
        calls=(Call(("states", "mask")),),
        length=1024,
        widths={"states": ("transformer", "joint_attention_dim")},
        templates=("prompt_template_encode",),
    ),
    TextKind(
        name="cogview4",
        pipeline="CogView4Pipeline",
        encoders={"text_encoder": GLM},
        calls=(Call(("states", None), _UNGUIDED),),  # padded in front to a multiple of 16, and the padding is read
        length=1024,
        widths={"states": ("transformer", "text_embed_dim")},
    ),
    TextKind(
        name="hunyuandit",
        pipeline="HunyuanDiTPipeline",
        encoders={"text_encoder": BERT, "text_encoder_2": T5},
        calls=(
            Call(("states", None, "mask", None), {"text_encoder_index": 0, **_UNGUIDED}),
            Call(("states_t5", None, "mask_t5", None), {"text_encoder_index": 1, **_UNGUIDED}),
        ),
        options={"requires_safety_checker": False},
        widths={
            "states": ("transformer", "cross_attention_dim"),
            "states_t5": ("transformer", "cross_attention_dim_t5"),
        },
        told={"text_encoder": (Told("states"),), "text_encoder_2": (Told("states_t5"),)},
    ),
)


def length_of(name: str) -> int | None:
    """Tokens of a caption that the pipeline of this kind asks for; None: none, or there is no such kind."""
    return next((kind.length for kind in KINDS if kind.name == name), None)


def named_kind(pipeline: str) -> TextKind | None:
    """The entry of the pipeline of this class; None: there is none."""
    return next((kind for kind in KINDS if kind.pipeline == pipeline), None)


def find_kind(found: Mapping[str, str], pipeline: str, *, source: object) -> TextKind:
    """The entry that reads text encoders of these classes, by folder: that of ``pipeline``, or else the first.

    Raises:
        CheckpointError: ``pipeline`` needs others, or no entry reads these.
    """
    named = named_kind(pipeline)
    if named is not None:
        _check_parts(found, named, source)
        return named
    fitting = [kind for kind in KINDS if not _problem(found, kind)]
    if not fitting:
        told = ", ".join(f"{part} {name}" for part, name in found.items())
        known = ", ".join(kind.pipeline for kind in KINDS)
        raise CheckpointError(f"{source}: its text encoders, {told}, are not those of {known}")
    return fitting[0]


def _check_parts(found: Mapping[str, str], kind: TextKind, source: object) -> None:
    if problem := _problem(found, kind):
        raise CheckpointError(f"{source}: a {kind.pipeline} {problem}", hint="Give the whole pipeline folder.")


def _problem(found: Mapping[str, str], kind: TextKind) -> str:
    """What is wrong with these text encoders for a pipeline, in words; empty: nothing."""
    for part, name in kind.encoders.items():
        if part not in found and part not in kind.optional:
            return f"needs a {part}, and there is none"
        if found.get(part, name) != name:
            return f"has a {name} as its {part}, and here it is {found[part]}"
    more = sorted(found.keys() - kind.encoders.keys())
    return f"has no {more[0]}" if more else ""
