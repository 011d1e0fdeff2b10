"""Captions through a stock pipeline's own ``encode_prompt``, with any number of text encoders; see ``text_kinds``.

Letters: B batch, S tokens of a caption, E width of a token's state (of all encoders together), P of a pooled one.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..config import TextRecord
from ..errors import CheckpointError, ConfigError
from ..storage import read_json, reason_of, without_warnings
from .encoders import Encoders
from .text_kinds import Call, TextKind
from .text_parts import digest_of, index_of, load_part


class PipelineEncoders(Encoders):
    """The tokenizers and text encoders of one pipeline."""

    def __init__(
        self, pipe: Any, kind: TextKind, record: TextRecord, *, zeros: bool, widths: Mapping[str, int]
    ) -> None:
        """``pipe`` is the pipeline without its denoiser and VAE; ``zeros``: the empty caption is all zeros."""
        self.pipe, self.kind, self.record = pipe, kind, record
        self._zeros, self._widths = zeros, widths
        self._is_checked = False  # whether the encoders were seen to give numbers of the right widths
        self.models = {part: model for part in kind.encoders if (model := getattr(pipe, part)) is not None}
        # The encoder that reads most of a caption: the last one of a pipeline that takes a length.
        last = list(self.models)[-1]
        reads_length = kind.length is not None and last == list(kind.encoders)[-1]
        self.tokenizer = getattr(pipe, _tokenizer_of(last if reads_length else "text_encoder"))
        self._asked_length = record.length or kind.length
        own = self._asked_length if reads_length else None
        self.length = int(pipe.tokenizer.model_max_length) if own is None else own
        self.asked_length, self.version = self._asked_length or self.length, kind.version
        self.is_masked = any("mask" in call.returns for call in kind.calls)

    @property
    def model(self) -> Any:
        """The first text encoder."""
        return next(iter(self.models.values()))

    @property
    def device(self) -> torch.device:
        """Where the encoders' weights are."""
        device: torch.device = self.model.device
        return device

    def digest_tokenizers(self) -> str:
        """As for all encoders; with the words that this version of the pipeline puts around a caption."""
        words = {name: getattr(self.pipe, name) for name in self.kind.templates}
        words |= {name: _default_of(self.pipe, name) for call in self.kind.calls for name in call.defaults}
        plain = super().digest_tokenizers()
        return hashlib.sha256(json.dumps([plain, words]).encode()).hexdigest() if words else plain

    @property
    def tokenizers(self) -> dict[str, Any]:
        """All tokenizers by the names of their folders."""
        return {(name := _tokenizer_of(part)): getattr(self.pipe, name) for part in self.models}

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """``states`` (B, S, E) in float32, ``mask`` (B, S), and what else the pipeline gives: often ``pooled`` (B, P).

        The captions are encoded one at a time: beside others, some pipelines give other numbers.
        """
        # Under the caller's autocast, the kept states would depend on which caller came first.
        with torch.autocast(self.device.type, enabled=False):
            parts = [self._encode_one(caption) for caption in captions]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _encode_one(self, caption: str) -> dict[str, Tensor]:
        calls = self.kind.calls if caption or isinstance(self.kind.null, str) else self.kind.null
        from diffusers.utils import logging

        try:
            with without_warnings(logging):  # of each long caption: ours counts them all at once
                found = {name: value for call in calls for name, value in self._call(call, caption).items()}
                if self.kind.finish is not None:
                    found = self.kind.finish(found)
        except BaseException as error:  # a damaged tokenizer raises anything, and its Rust panics
            if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
                raise
            raise CheckpointError(
                f"the tokenizers and text encoders of {self.record.source} do not go together: {reason_of(error)}"
            ) from error
        if not self._is_checked:  # of the first caption only: a GPU is waited for here
            self._check(found)
        if not caption and self._zeros:
            found = {name: torch.zeros_like(value) for name, value in found.items()}
        states = found["states"]
        mask = found.pop("mask", None)  # none: all tokens count
        mask = torch.ones(states.shape[:2], device=states.device) if mask is None else mask
        whole = {name: value.bool() if name.startswith("mask") else value.float() for name, value in found.items()}
        return {"states": whole.pop("states"), "mask": mask.bool(), **whole}

    def _call(self, call: Call, caption: str) -> dict[str, Tensor]:
        length = {} if self._asked_length is None else {"max_sequence_length": self._asked_length}
        told = {name: _default_of(self.pipe, name) for name in call.defaults}
        returned = self.pipe.encode_prompt(prompt=caption, device=self.device, **length, **call.given, **told)
        found = {name: value for name, value in zip(call.returns, returned, strict=True) if name is not None}
        # A list holds one tensor (S, E) a caption. A mask of ones may be left out.
        alone = {name: value[0][None] if isinstance(value, list) else value for name, value in found.items()}
        return {name: value for name, value in alone.items() if value is not None}

    def _check(self, found: Mapping[str, Tensor]) -> None:
        """Raise CheckpointError where the encoders give no numbers, or other widths than the denoiser reads."""
        source = self.record.source
        if not all(bool(value.isfinite().all()) for value in found.values()):
            raise CheckpointError(f"a text encoder of {source} gives states that are not finite")
        for name, width in self._widths.items():
            given = found[name].shape[-1]
            if given != width:
                raise CheckpointError(
                    f"the text encoders of {source} give {name} of width {given}, and its {self.kind.widths[name][0]} "
                    f"reads {width}",
                    hint="Give the text encoders of the same pipeline.",
                )
        self._is_checked = True


def _default_of(pipe: Any, name: str) -> Any:
    """The default of an argument of the pipeline's own call."""
    return inspect.signature(type(pipe).__call__).parameters[name].default


def load_encoders(
    folder: Path, kind: TextKind, parts: Sequence[str], *, length: int | None = None, device: str | torch.device = "cpu"
) -> PipelineEncoders:
    """Load the tokenizers and text encoders ``parts`` of a pipeline's folder, in eval mode, in float32.

    ``length``: tokens of a caption, for a pipeline that takes a length; None: its default.

    Raises:
        CheckpointError: a part is missing or damaged.
        ConfigError: transformers is not installed.
    """
    loaded = {part: load_part(folder, kind.encoders[part], tokenizer=_tokenizer_of(part), part=part) for part in parts}
    models = {part: model.to(device).eval().requires_grad_(False) for part, (_, model) in loaded.items()}
    told = index_of(folder)
    flags = {} if kind.null_flag is None else {kind.null_flag: told.get(kind.null_flag, True) is not False}
    read = {name: _width_in(folder, *where) for name, where in kind.widths.items()}
    widths = {name: width for name, width in read.items() if width is not None}
    pipe = _pipeline(kind, {**flags, **models, **{_tokenizer_of(part): own for part, (own, _) in loaded.items()}})
    if kind.optional - models.keys():  # what stands for its states is as wide as the denoiser reads
        part, field = kind.widths["states"]
        setattr(pipe, part, SimpleNamespace(config=SimpleNamespace(**{field: widths.get("states", 4096)})))
    record = TextRecord(
        kind=kind.name,
        source=str(folder),
        digest=digest_of({f"{part}.": model for part, model in models.items()}),
        length=None if length == kind.length else length,
    )
    zeros = kind.null == "zeros" and all(flags.values())
    return PipelineEncoders(pipe, kind, record, zeros=zeros, widths=widths)


def _pipeline(kind: TextKind, given: Mapping[str, Any]) -> Any:
    """The pipeline with these parts and flags, and None for all others."""
    import diffusers

    made = getattr(diffusers, kind.pipeline)
    taken = inspect.signature(made.__init__).parameters
    empty = {name: None for name, about in taken.items() if name != "self" and about.default is inspect.Parameter.empty}
    return made(**{**empty, **kind.options, **given})


def _tokenizer_of(part: str) -> str:
    return part.replace("text_encoder", "tokenizer")


def _width_in(folder: Path, part: str, field: str) -> int | None:
    """What the config of a part says of a width; None where the folder does not hold the part."""
    try:
        width = dict(read_json(folder / part / "config.json")).get(field)
    except ConfigError:
        return None
    return width if isinstance(width, int) else None
