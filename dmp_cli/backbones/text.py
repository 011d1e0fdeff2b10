"""Encode captions for the backbones that read text, through transformers.

A caption is passed on as its index in a table, as a class is. Loss, sampling and dropout therefore treat both alike.
Letters: B batch, S tokens of a caption, E width of a token's state.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..config import TextRecord
from ..errors import CheckpointError, ConfigError
from ..storage import (
    check_finite,
    digest_tensors,
    read_json,
    read_object,
    reason_of,
    transformers_for,
    unpickled,
    variant_of,
)
from .claims import building
from .original_text import load_original_text

_KEPT_BYTES = 1 << 30  # memory for encoded captions
_STEMS = ("model", "pytorch_model")  # what the names of an encoder's weight files begin with
_T5_LENGTH = 120  # tokens per caption in the training of PixArt-alpha
_KINDS: dict[str, Literal["clip", "t5"]] = {"CLIPTextModel": "clip", "T5EncoderModel": "t5"}


class TextEncoder:
    """A tokenizer and its text encoder. Not an ``nn.Module``, so that a backbone never owns its parameters."""

    def __init__(self, tokenizer: Any, model: Any, record: TextRecord) -> None:
        self.tokenizer, self.model, self.record = tokenizer, model, record
        self._is_checked = False  # whether it was seen to give numbers
        # A tokenizer that was saved without a length reports a huge one; the encoder's is the bound then.
        room = getattr(model.config, "max_position_embeddings", _T5_LENGTH)
        self.length = _T5_LENGTH if record.kind == "t5" else min(int(tokenizer.model_max_length), int(room))

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode captions, cut or padded to S tokens: states (B, S, E) float32 and mask (B, S).

        CLIP attends to its padding, as in the training of Stable Diffusion. T5 gets the mask and lower-case captions,
        as in the training of PixArt-alpha.
        """
        masked = self.record.kind == "t5"
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
        return states.float(), mask.bool()

    def _tokenize(self, texts: list[str]) -> Any:
        """Tokens of ``texts``, all of which the encoder knows: others would end in an error of the device."""
        try:
            tokens = self.tokenizer(
                texts, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
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


class CaptionTable:
    """A table of captions. Encodings are kept while there is room. Index 0 is the empty caption, the null condition."""

    def __init__(self, encoder: TextEncoder, *, kept_bytes: int = _KEPT_BYTES) -> None:
        self.encoder, self._kept_bytes = encoder, kept_bytes
        self._texts: list[str] = [""]
        self._index = {"": 0}
        self._kept: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()  # least recently used first

    def indices(self, captions: Sequence[str]) -> Tensor:
        """The indices (B,) of captions. New captions are added to the table."""
        for caption in captions:
            if caption not in self._index:
                self._index[caption] = len(self._texts)
                self._texts.append(caption)
        found = [self._index[caption] for caption in captions]
        return torch.tensor(found, dtype=torch.int64, device=self.encoder.model.device)

    def caption(self, index: int) -> str:
        """The caption with this index."""
        return self._texts[index]

    def look_up(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, S, E) and masks (B, S) of the captions with the indices ``condition`` (B,)."""
        wanted = condition.tolist()
        rows = {index: self._kept[index] for index in wanted if index in self._kept}
        new = [index for index in dict.fromkeys(wanted) if index not in rows]
        for index in new:  # one at a time, because the last digits of an encoding depend on the batch size
            states, masks = self.encoder.encode([self._texts[index]])
            rows[index] = states[0], masks[0]
        self._keep(rows)
        return torch.stack([rows[i][0] for i in wanted]), torch.stack([rows[i][1] for i in wanted])

    def _keep(self, rows: dict[int, tuple[Tensor, Tensor]]) -> None:
        """Keep these encodings, and drop the least recently used ones that exceed the room."""
        for index, row in rows.items():
            self._kept[index] = row
            self._kept.move_to_end(index)
        if 0 in self._kept:
            self._kept.move_to_end(0)  # nearly every batch has the null caption, so it is never dropped
        states = next(iter(rows.values()))[0]
        room = max(1, self._kept_bytes // (states.numel() * states.element_size()))
        while len(self._kept) > room:
            self._kept.popitem(last=False)


def load_text(folder: str | Path, *, tokenizer: Path | None = None, device: str | torch.device = "cpu") -> CaptionTable:
    """Load the tokenizer and text encoder of a pipeline folder, in eval mode, in float32.

    ``folder`` may be an original Stable Diffusion file, which holds the encoder; ``tokenizer`` is a folder then.

    Raises:
        CheckpointError: a part is missing, damaged, or of an unsupported kind.
        ConfigError: transformers is not installed.
    """
    folder = Path(folder)
    if folder.is_file():
        own, model = load_original_text(folder, tokenizer)
        return _table(own, model, kind="clip", source=tokenizer or folder, device=device)
    kind = _kind_of(folder)
    with transformers_for("a backbone that reads text needs") as transformers:
        encoder = getattr(transformers, "CLIPTextModel" if kind == "clip" else "T5EncoderModel")
        try:
            own = transformers.AutoTokenizer.from_pretrained(
                folder / "tokenizer", local_files_only=True, trust_remote_code=False
            )
            with unpickled(folder / "text_encoder", *_STEMS, to=_STEMS[0]) as place:
                model, report = encoder.from_pretrained(
                    place,
                    local_files_only=True,
                    output_loading_info=True,
                    dtype=torch.float32,
                    use_safetensors=True,  # a pickle would be opened by a reader that is not ours
                    variant=variant_of(place, *_STEMS),
                )
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"cannot read the tokenizer and text encoder of {folder}: {reason_of(error)}",
                hint="Give the whole pipeline folder, as save_pretrained wrote it.",
            ) from error
    _check_loaded(report, folder)
    check_finite(model.state_dict(), source=folder / "text_encoder")
    return _table(own, model, kind=kind, source=folder, device=device)


def _table(
    tokenizer: Any, model: Any, *, kind: Literal["clip", "t5"], source: Path, device: str | torch.device
) -> CaptionTable:
    model = model.to(device).eval().requires_grad_(False)
    with building(source):
        return CaptionTable(
            TextEncoder(tokenizer, model, TextRecord(kind=kind, source=str(source), digest=_digest(model)))
        )


def _digest(model: Any) -> str:
    # before version 5, transformers put this prefix before CLIP's names
    return digest_tensors({name.removeprefix("text_model."): t for name, t in model.state_dict().items()})


def _kind_of(folder: Path) -> Literal["clip", "t5"]:
    """The kind of a folder's text encoder, by the encoder's own config."""
    if len(_encoders(folder)) > 1:
        raise CheckpointError(f"{folder} has two text encoders, as Stable Diffusion XL and 3 do; only one is supported")
    file = folder / "text_encoder" / "config.json"
    try:
        names = read_object(file, kind=CheckpointError).get("architectures")
    except CheckpointError as error:
        raise CheckpointError(error.message, hint="Give the whole pipeline folder.") from error
    name = str(names[0])[:80] if isinstance(names, list) and names else "none"
    if name not in _KINDS:
        raise CheckpointError(f"{folder}: its text encoder {name} is not supported; supported are {', '.join(_KINDS)}")
    return _KINDS[name]


def _encoders(folder: Path) -> set[str]:
    """The text encoders that a pipeline folder holds or that its model_index.json names."""
    try:
        named = read_json(folder / "model_index.json")
    except ConfigError:
        named = {}
    told = {key for key, value in dict(named).items() if "text_encoder" in key and any(value or ())}
    return told | {path.name for path in folder.glob("text_encoder*") if path.is_dir()}


def _check_loaded(report: dict[str, Any], folder: Path) -> None:
    # Older files hold position_ids as a buffer, which newer versions of transformers compute.
    problems = [
        f"{key.replace('_', ' ')} {', '.join(sorted(map(str, names))[:3])}"
        for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if (names := [name for name in report.get(key, ()) if "position_ids" not in str(name)])
    ]
    if problems:
        raise CheckpointError(f"{folder}: the text encoder's tensors do not fit: {'; '.join(problems)}")
