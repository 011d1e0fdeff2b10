"""What is remembered of text encoders, so that a T5 of 19 GB is not read to learn that it is the same as before.

``$DMP_HOME/text-encoders/HASH.json`` holds it. The hash is over path, size, times and place on the disk of every file
of the encoders and tokenizers, so that after any change they are read again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from pathlib import Path

import torch
from pydantic import ValidationError

from ..config import Frozen, TextRecord
from ..errors import DMPError
from ..storage import home_folder, read_object, write_json
from .caption_table import CaptionTable
from .encoders import About, DepartedEncoders, about
from .text import load_again, load_text, text_kind_of
from .text_kinds import KINDS
from .text_parts import load_tokenizer


class _Known(Frozen):
    """The content of one file."""

    record: TextRecord
    length: int
    asked_length: int
    version: int
    is_masked: bool
    tokenizers: str
    tokenizer: str  # the folder of the one that reads most of a caption


def recall_text(folder: Path, *, length: int | None, device: str | torch.device) -> CaptionTable:
    """The captions of the encoders in ``folder``, which are not loaded before a caption needs them, if they are known.

    Raises:
        CheckpointError: as :func:`load_text`.
    """
    place = _place(folder, length)
    known = None if place is None else _read(place)
    if known is None:
        table = load_text(folder, length=length, device=device)
        if place is not None:
            _remember(place, table)
        return table
    load = functools.partial(load_again, folder, None, length, device)
    told = About(**{name: getattr(known, name) for name in About._fields})
    tokenizer = functools.partial(load_tokenizer, folder, known.tokenizer)
    departed = DepartedEncoders(told, load=load, tokenizer=tokenizer, device=torch.device(device))
    return CaptionTable(departed, load=load)


def _place(folder: Path, length: int | None) -> Path | None:
    """The file that remembers these encoders as they are now; None: there can be none."""
    if not folder.is_dir():
        return None
    files = [folder / "model_index.json"]
    for part in sorted((*folder.glob("text_encoder*"), *folder.glob("tokenizer*"))):
        files += sorted(path for path in part.rglob("*") if path.is_file())
    stamps = []
    for path in files:
        with contextlib.suppress(OSError):
            found = path.stat()
            name = str(path.relative_to(folder))
            stamps.append([name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev])
    try:
        version = next((kind.version for kind in KINDS if kind.name == text_kind_of(folder)), 1)
        content = json.dumps([os.path.abspath(folder), str(folder), length, version, stamps])
        return home_folder() / "text-encoders" / f"{hashlib.sha256(content.encode()).hexdigest()}.json"
    except (DMPError, ValueError):  # no home, or a name that is no text
        return None


def _read(place: Path) -> _Known | None:
    try:
        return _Known.model_validate(read_object(place, paths=True)) if place.exists() else None
    except (DMPError, ValidationError, OSError):
        return None


def _remember(place: Path, table: CaptionTable) -> None:
    encoder = table.encoder
    names = [name for name, own in encoder.tokenizers.items() if own is encoder.tokenizer]
    known = _Known(**about(encoder)._asdict(), tokenizer=names[0])
    with contextlib.suppress(DMPError, OSError):  # the encoders are read again next time
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, known.model_dump(mode="json"))
