"""What a table of captions may ask of text encoders, whichever they are; and what stays of them when they have left.

Letters: B batch, S tokens of a caption, E width of a token's state, P of a pooled one.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..config import TextRecord
from ..errors import ConfigError

_LENGTHS = {"t5": 120, "sd3": 256, "flux": 512}  # tokens of a caption where a record says nothing


class Encoders(ABC):
    """The tokenizers and text encoders of a backbone. Not an ``nn.Module``: a backbone never owns their parameters."""

    record: TextRecord
    tokenizer: Any  # of the encoder that reads most of a caption
    length: int  # tokens that it reads
    asked_length: int  # tokens that are asked for
    version: int = 1  # of how captions are given to the encoders; raised when a caption gives other numbers
    is_masked: bool = False  # whether nobody reads the states of the tokens that the mask leaves out

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the encoders' weights are."""

    @abstractmethod
    def encode(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """What the encoders give of captions, by name: ``states`` (B, S, E) float32, ``mask`` (B, S), and more."""

    @property
    def tokenizers(self) -> Mapping[str, Any]:
        """All tokenizers by the names of their folders."""
        return {"tokenizer": self.tokenizer}

    def count_tokens(self, captions: Sequence[str]) -> list[int]:
        """How many tokens of each caption are read."""
        found = self.tokenizer(list(captions), truncation=False, verbose=False)["input_ids"]
        return [min(len(tokens), self.length) for tokens in found]

    def digest_tokenizers(self) -> str:
        """SHA-256 over what the tokenizers make of text: vocabularies, rules, special tokens and lengths."""
        return hashlib.sha256(
            json.dumps({name: _rules_of(own) for name, own in self.tokenizers.items()}, sort_keys=True).encode()
        ).hexdigest()


class DepartedEncoders(Encoders):
    """What stays of encoders that have left memory: their record and a tokenizer.

    For a caption that nobody has encoded they are loaded once more, and stay.
    """

    def __init__(self, encoders: Encoders, load: Callable[[], Encoders]) -> None:
        self.record, self.tokenizer, self.length = encoders.record, encoders.tokenizer, encoders.length
        self.asked_length, self.version, self.is_masked = encoders.asked_length, encoders.version, encoders.is_masked
        self._tokenizers, self._device, self._load = encoders.tokenizers, encoders.device, load
        self._again: Encoders | None = None

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def tokenizers(self) -> Mapping[str, Any]:
        return self._tokenizers

    def encode(self, captions: Sequence[str]) -> dict[str, Tensor]:
        if self._again is None:
            self._again = self._load()
        return self._again.encode(captions)


def _rules_of(tokenizer: Any) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = {} if backend is None else json.loads(backend.to_str())
    return {
        "class": type(tokenizer).__name__,
        "vocabulary": sorted(tokenizer.get_vocab().items()),
        # what the last call has set, is no part of it
        "rules": {key: value for key, value in rules.items() if key not in ("truncation", "padding")},
        "special": {key: str(value) for key, value in tokenizer.special_tokens_map.items()},
        "length": int(tokenizer.model_max_length),
        "side": str(tokenizer.padding_side),
    }


def check_same_text(trained: TextRecord, found: TextRecord) -> None:
    """Raise ConfigError when the text encoders are not those that a patch was trained with."""
    if found.length != trained.length:
        theirs, ours = (record.length or _LENGTHS.get(record.kind) for record in (trained, found))
        raise ConfigError(f"the patch was trained on captions of {theirs} tokens, and this pipeline has {ours}")
    if found.digest != trained.digest:
        raise ConfigError(
            f"the patch was trained with another text encoder: {trained.source}, not {found.source}",
            hint="Give the pipeline it was trained on with --checkpoint, or accept this one with --force-backbone.",
        )
