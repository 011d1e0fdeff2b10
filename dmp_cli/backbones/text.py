"""Encode captions for the backbones that read text, through transformers.

Letters: B batch, S tokens of a caption, E width of a token's state.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import TextRecord
from ..errors import CheckpointError
from ..storage import read_object, reason_of
from .caption_table import CaptionTable
from .claims import building
from .encoders import Encoders
from .original_text import load_original_text
from .sources import place_of
from .text_kinds import TextKind, find_kind, named_kind
from .text_parts import digest_of, index_of, load_part

_T5_LENGTH = 120  # tokens per caption in the training of PixArt-alpha
_OTHER_LENGTHS = {"PixArtSigmaPipeline": 300}  # likewise, by the pipeline's class
_CLASSES: dict[Literal["clip", "t5"], str] = {"clip": "CLIPTextModel", "t5": "T5EncoderModel"}
_KINDS = {name: kind for kind, name in _CLASSES.items()}


class TextEncoder(Encoders):
    """A tokenizer and its text encoder."""

    def __init__(self, tokenizer: Any, model: Any, record: TextRecord) -> None:
        self.tokenizer, self.model, self.record = tokenizer, model, record
        self._is_checked = False  # whether it was seen to give numbers
        # A tokenizer that was saved without a length reports a huge one; the encoder's is the bound then.
        room = getattr(model.config, "max_position_embeddings", _T5_LENGTH)
        own = _T5_LENGTH if record.kind == "t5" else min(int(tokenizer.model_max_length), int(room))
        self.length = self.asked_length = record.length or own
        self.is_masked = record.kind == "t5"

    @property
    def device(self) -> torch.device:
        """Where the encoder's weights are."""
        device: torch.device = self.model.device
        return device

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Encode captions, cut or padded to S tokens: ``states`` (B, S, E) float32 and ``mask`` (B, S).

        CLIP attends to its padding, as in the training of Stable Diffusion. T5 gets the mask and lower-case captions,
        as in the training of PixArt-alpha.
        """
        masked = self.is_masked
        texts = [caption.lower().strip() if masked else caption for caption in captions]
        tokens = self._tokenize(texts).to(self.model.device)
        mask = tokens["attention_mask"]
        # Under the caller's autocast, the kept states would depend on which caller came first.
        with torch.autocast(self.model.device.type, enabled=False):
            states = self.model(tokens["input_ids"], attention_mask=mask if masked else None)[0]  # (B, S, E)
        # Of the first captions only: a GPU is waited for here.
        if not self._is_checked and not bool(states.isfinite().all()):
            raise CheckpointError(f"the text encoder of {self.record.source} gives states that are not finite")
        self._is_checked = True
        return {"states": states.float(), "mask": mask.bool()}

    def _tokenize(self, texts: list[str]) -> Any:
        """Tokens of ``texts``, all of which the encoder knows: others would end in an error of the device."""
        try:
            tokens = self.tokenizer(
                texts,
                padding="max_length",
                max_length=self.length,
                truncation=True,
                return_attention_mask=True,  # whatever its config says
                return_tensors="pt",
            )
            largest = int(tokens["input_ids"].max())
        except BaseException as error:  # a tokenizer with a damaged vocabulary raises anything, and its Rust panics
            if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
                raise
            raise CheckpointError(f"the tokenizer of {self.record.source} is damaged: {reason_of(error)}") from error
        known = self.model.get_input_embeddings().num_embeddings
        if largest >= known:
            raise CheckpointError(
                f"the tokenizer of {self.record.source} gives token {largest}, and its text encoder knows {known}",
                hint="Give the tokenizer and the text encoder of one pipeline.",
            )
        return tokens


def load_text(
    folder: str | Path,
    *,
    tokenizer: Path | None = None,
    length: int | None = None,
    device: str | torch.device = "cpu",
) -> CaptionTable:
    """Load the tokenizers and text encoders of a pipeline folder, in eval mode, in float32.

    ``folder`` may be an original Stable Diffusion file, which holds the encoder; ``tokenizer`` is a folder then.
    ``length`` is the number of tokens of a caption, where the pipeline lets one choose; None: its default.

    Raises:
        CheckpointError: a part is missing, damaged, or of an unsupported kind.
        ConfigError: transformers is not installed.
    """
    load = functools.partial(load_again, Path(folder), tokenizer, length, device)
    return CaptionTable(load(), load=load)


def peek_text(name: str, checkpoint: Path | None, text: Path | None) -> Path | None:
    """The folder of the text encoders of the backbone that ``name`` stands for, as a load will find it.

    No weights are read. None: only they tell.
    """
    place = place_of(name, checkpoint)
    if place is None or not place.is_dir():
        return None
    if text is not None:
        return text
    around = (place, place.parent) if (place.parent / "model_index.json").exists() else (place,)
    found = next((folder for folder in around if (folder / "text_encoder" / "config.json").exists()), None)
    return None if found is None else Path(os.path.abspath(found))


def text_kind_of(folder: Path) -> str:
    """The kind of the text encoders in a folder, or in an original Stable Diffusion file, as TextRecord.kind.

    No weights are read. Raises CheckpointError as :func:`load_text`.
    """
    if folder.is_file():
        return "clip"
    kind, _ = _kind_of(folder)
    return kind.name if isinstance(kind, TextKind) else kind


def load_again(folder: Path, tokenizer: Path | None, length: int | None, device: str | torch.device) -> Encoders:
    """The encoders alone of :func:`load_text`."""
    if folder.is_file():
        own, model = load_original_text(folder, tokenizer)
        return _encoder(own, model, kind="clip", source=tokenizer or folder, device=device)
    kind, parts = _kind_of(folder)
    if isinstance(kind, TextKind):
        from .text_pipeline import load_encoders

        with building(folder):
            return load_encoders(folder, kind, parts, length=length, device=device)
    own, model = load_part(folder, _CLASSES[kind])
    length = _OTHER_LENGTHS.get(str(index_of(folder).get("_class_name"))) if kind == "t5" else None
    return _encoder(own, model, kind=kind, source=folder, device=device, length=length)


def _encoder(
    tokenizer: Any,
    model: Any,
    *,
    kind: Literal["clip", "t5"],
    source: Path,
    device: str | torch.device,
    length: int | None = None,
) -> TextEncoder:
    model = model.to(device).eval().requires_grad_(False)
    with building(source):
        record = TextRecord(kind=kind, source=str(source), digest=digest_of({"": model}), length=length)
        return TextEncoder(tokenizer, model, record)


def _kind_of(folder: Path) -> tuple[Literal["clip", "t5"] | TextKind, list[str]]:
    """The kind of a folder's text encoders, by their own configs, and the names of their folders."""
    encoders, pipeline = sorted(_encoders(folder)), str(index_of(folder).get("_class_name"))
    if len(encoders) > 1 or named_kind(pipeline) is not None:
        _check_there(folder, encoders, named_kind(pipeline))
        found = {part: _class_in(folder / part) for part in encoders}
        return find_kind(found, pipeline, source=folder), encoders
    name = _class_in(folder / "text_encoder")
    if name not in _KINDS:
        raise CheckpointError(f"{folder}: its text encoder {name} is not supported; supported are {', '.join(_KINDS)}")
    return _KINDS[name], encoders


def _check_there(folder: Path, encoders: list[str], kind: TextKind | None) -> None:
    """Raise CheckpointError for an encoder that the pipeline can do without, which is named and was not downloaded."""
    left_out = [part for part in encoders if kind and part in kind.optional and not (folder / part).exists()]
    for part in left_out:
        others = ", ".join(f'"{name}": [null, null]' for name in (part, part.replace("text_encoder", "tokenizer")))
        raise CheckpointError(
            f"{folder}: its model_index.json names a {part}, and there is none",
            hint=f"Give the whole pipeline folder; or, to go without it, write {others} there.",
        )


def _class_in(folder: Path) -> str:
    """The class of the text encoder in ``folder``, by its config."""
    try:
        names = read_object(folder / "config.json", kind=CheckpointError).get("architectures")
    except CheckpointError as error:
        raise CheckpointError(error.message, hint="Give the whole pipeline folder.") from error
    return str(names[0])[:80] if isinstance(names, list) and names else "none"


def _encoders(folder: Path) -> set[str]:
    """The text encoders that a pipeline folder holds or that its model_index.json names."""
    named = index_of(folder).items()
    told = {key for key, value in named if "text_encoder" in key and any(value or ())}
    there = (path.name for path in folder.glob("text_encoder*") if path.is_dir())
    # Stable Diffusion 3.5's repositories have a text_encoders/ too, of files for another program.
    return told | {name for name in there if re.fullmatch(r"text_encoder(_\w+)?", name)}
