"""Encoders whose states follow from the letters of a caption, and stores of what they give."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from dmp_cli.backbones import Encoders
from dmp_cli.config import TextRecord
from dmp_cli.texts import TextStore, describe_texts, encode_missing

LENGTH = 8


class Letters:
    """A tokenizer: one token a letter."""

    model_max_length, padding_side = LENGTH, "right"
    special_tokens_map: ClassVar[dict[str, str]] = {}

    def __call__(self, texts: list[str], **how: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}

    def get_vocab(self) -> dict[str, int]:
        return {chr(code): code for code in range(128)}


class LetterEncoders(Encoders):
    """States (S, 4), a mask with a token for each letter, and pooled states (3,); ``asked`` are the captions so far."""

    def __init__(self, *, masked: bool = False, digest: str = "one", scale: float = 1.0) -> None:
        self.record = TextRecord(kind="t5" if masked else "sdxl", source="here/pipe", digest=digest)
        self.tokenizer, self.length, self.asked_length = Letters(), LENGTH, LENGTH
        self.is_masked, self.scale = masked, scale
        self.asked: list[str] = []

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def encode(self, captions: Sequence[str]) -> dict[str, Tensor]:
        self.asked += captions
        rows = [self._row(caption) for caption in captions]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _row(self, caption: str) -> dict[str, Tensor]:
        source = torch.Generator().manual_seed(int(hashlib.sha256(caption.encode()).hexdigest()[:8], 16))
        states, pooled = (torch.randn(shape, generator=source) * self.scale for shape in ((LENGTH, 4), (3,)))
        return {"states": states, "mask": torch.arange(LENGTH) < len(caption), "pooled": pooled}


def store_of(folder: Path, encoders: Encoders, *, dtype: Any = "fp32") -> TextStore:
    """The store in ``folder``, as a process that begins finds it."""
    store = TextStore(folder, describe_texts(encoders, dtype=dtype, reads_mask=encoders.is_masked))
    store.claim()
    store.refresh()
    return store


def make(store: TextStore, captions: Sequence[str], encoders: Encoders, **how: Any) -> list[int]:
    return list(encode_missing(store, captions, encoders, **how))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.*") if path.is_file()}
