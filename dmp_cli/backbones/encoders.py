"""What a table of captions may ask of text encoders, whichever they are; and what stays of them when they have left.

Letters: B batch, S tokens of a caption, E width of a token's state, P of a pooled one.
"""

from __future__ import annotations

import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import TextRecord
from ..errors import CheckpointError, ConfigError
from .text_kinds import KINDS

# Tokens of a caption where a record says nothing; 77: a pipeline that takes no length.
_LENGTHS: dict[str, int] = {"t5": 120, **{kind.name: kind.length or 77 for kind in KINDS}}


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


class About(NamedTuple):
    """What is known of encoders without their weights."""

    record: TextRecord
    length: int
    asked_length: int
    version: int
    is_masked: bool
    tokenizers: str  # their digest


class DepartedEncoders(Encoders):
    """What stays of encoders that have left memory, or have not come yet: what is known of them, and a tokenizer.

    For a caption that nobody has encoded they are loaded, and stay until they are let go.
    """

    def __init__(
        self, about: About, *, load: Callable[[], Encoders], tokenizer: Callable[[], Any], device: torch.device
    ) -> None:
        self.about, self.record, self.length = about, about.record, about.length
        self.asked_length, self.version, self.is_masked = about.asked_length, about.version, about.is_masked
        self._load, self._tokenizer, self._device = load, tokenizer, device
        self._loaded: Encoders | None = None

    @property
    def device(self) -> torch.device:
        return self._device

    @functools.cached_property
    def tokenizer(self) -> Any:
        """Of the encoder that reads most of a caption."""
        return self._tokenizer()

    def encode(self, captions: Sequence[str]) -> dict[str, Tensor]:
        if self._loaded is None:
            self._loaded = self._load()
            if self._loaded.record.digest != self.record.digest:
                raise CheckpointError(
                    f"the text encoders of {self.record.source} were changed while they were used",
                    hint="Run the command again.",
                )
        return self._loaded.encode(captions)

    def digest_tokenizers(self) -> str:
        return self.about.tokenizers

    def let_go(self) -> None:
        """Let the encoders leave memory, if they are there."""
        self._loaded = None


def depart(encoders: Encoders, load: Callable[[], Encoders]) -> DepartedEncoders:
    """What stays of ``encoders``; nothing of it holds on to their weights."""
    if isinstance(encoders, DepartedEncoders):
        encoders.let_go()
        return encoders
    tokenizer, device = encoders.tokenizer, encoders.device
    return DepartedEncoders(about(encoders), load=load, tokenizer=lambda: tokenizer, device=device)


def about(encoders: Encoders) -> About:
    """What is to be known of encoders without their weights."""
    return About(
        encoders.record,
        encoders.length,
        encoders.asked_length,
        encoders.version,
        encoders.is_masked,
        encoders.digest_tokenizers(),
    )


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
