"""Tiny tokenizers and text encoders in the folders that transformers writes, made offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

WORDS = ("a", "red", "fox", "blue", "bird", "two", "cats")


def write_clip(folder: Path, *, seed: int = 0) -> Path:
    """``folder/tokenizer`` and ``folder/text_encoder`` of a CLIP text model of width 32."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    entries = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    place = folder / "tokenizer"
    place.mkdir(parents=True, exist_ok=True)
    (place / "vocab.json").write_text(json.dumps({entry: index for index, entry in enumerate(entries)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=16).save_pretrained(place)
    config = CLIPTextConfig(
        vocab_size=len(entries),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=len(entries) - 2,
        eos_token_id=len(entries) - 1,
        pad_token_id=len(entries) - 1,
    )
    filled(CLIPTextModel(config), seed).save_pretrained(folder / "text_encoder")
    return folder


def write_projected_clip(folder: Path, *, seed: int = 1, projection: int = 24) -> Path:
    """``folder/tokenizer_2`` and ``folder/text_encoder_2`` of width 48 and pooled states, as XL's second one."""
    import shutil

    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    shutil.copytree(folder / "tokenizer", folder / "tokenizer_2")
    first = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    sizes = {"hidden_size": 48, "intermediate_size": 48, "projection_dim": projection}
    config = CLIPTextConfig(**{**first.to_dict(), **sizes})
    filled(CLIPTextModelWithProjection(config), seed).save_pretrained(folder / "text_encoder_2")
    return folder


def write_t5(folder: Path, *, seed: int = 0, width: int = 32, suffix: str = "", kind: str = "T5") -> Path:
    """``folder/tokenizer`` and ``folder/text_encoder``, with ``suffix``, of a T5 encoder; ``kind``: or of a UMT5."""
    import transformers

    count = write_words(folder / f"tokenizer{suffix}")
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=count,
        d_model=width,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    filled(getattr(transformers, f"{kind}EncoderModel")(config), seed).save_pretrained(folder / f"text_encoder{suffix}")
    return folder


def write_gemma(folder: Path, *, seed: int = 0, width: int = 32) -> Path:
    """``folder/tokenizer`` and ``folder/text_encoder`` of a Gemma 2."""
    from transformers import Gemma2Config, Gemma2Model

    count = write_words(folder / "tokenizer")
    config = Gemma2Config(
        vocab_size=count,
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=1024,
        query_pre_attn_scalar=8,
        pad_token_id=0,
    )
    filled(Gemma2Model(config), seed).save_pretrained(folder / "text_encoder")
    return folder


def write_qwen(folder: Path, *, seed: int = 0) -> Path:
    """``folder/tokenizer``, with a chat template, and ``folder/text_encoder`` of a Qwen 3 of width 32."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3Model

    count = write_words(folder / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.chat_template = "{% for m in messages %}red {{ m['content'] }} fox {% endfor %}"
    tokenizer.save_pretrained(folder / "tokenizer")
    config = Qwen3Config(
        vocab_size=count,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=1024,
        pad_token_id=0,
    )
    filled(Qwen3Model(config), seed).save_pretrained(folder / "text_encoder")
    return folder


def write_qwen_vl(folder: Path, *, seed: int = 0) -> Path:
    """``folder/tokenizer`` and ``folder/text_encoder`` of a Qwen 2.5 VL of width 32."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    count = write_words(folder / "tokenizer", length=2048)
    text: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": count,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config={**vision, "fullatt_block_indexes": [0]},
        hidden_size=32,
        vocab_size=count,
    )
    filled(Qwen2_5_VLForConditionalGeneration(config), seed).save_pretrained(folder / "text_encoder")
    return folder


def write_glm(folder: Path, *, seed: int = 0) -> Path:
    """``folder/tokenizer``, which pads in front, and ``folder/text_encoder`` of a GLM of width 32."""
    from transformers import GlmConfig, GlmModel

    count = write_words(folder / "tokenizer", length=2048, padding_side="left")
    config = GlmConfig(
        vocab_size=count,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=2048,
        pad_token_id=0,
    )
    filled(GlmModel(config), seed).save_pretrained(folder / "text_encoder")
    return folder


def write_bert(folder: Path, *, seed: int = 0) -> Path:
    """``folder/tokenizer`` and ``folder/text_encoder`` of a BERT of width 32."""
    from transformers import BertConfig, BertModel

    count = write_words(folder / "tokenizer", length=77)
    config = BertConfig(
        vocab_size=count,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    filled(BertModel(config), seed).save_pretrained(folder / "text_encoder")
    return folder


def write_words(folder: Path, *, length: int = 512, **options: Any) -> int:
    """A tokenizer of words, and of the end; how many it knows."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    entries = ["<pad>", "</s>", "<unk>", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({entry: i for i, entry in enumerate(entries)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    own = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=length,
        model_input_names=["input_ids", "attention_mask"],
        **options,
    )
    own.save_pretrained(folder)
    return len(entries)


def filled(model: Any, seed: int) -> Any:
    """``model`` with random weights that are a function of ``seed``, in eval mode."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=source))
    return model.eval()
