"""Which part of a caption's states each text encoder of a pipeline gives, so that one encoder alone can be withheld.

A caption that an encoder is not told has zeros in that encoder's states and in its pooled vector, as kohya's trainers
have it.
Letters: B batch, S tokens of a caption, E width of a token's state, P of a pooled one, K text encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from ..runtime import Ambient
from ..storage import read_object
from .text_kinds import KINDS, Told, length_of


class Share(NamedTuple):
    """What one encoder gives of one of the returns: ``places`` of its last dimensions."""

    name: str  # of the return: states (B, S, E), pooled (B, P)
    places: tuple[slice, ...]


withheld: Ambient[Tensor] = Ambient()  # of a thread's forward: (B, K), true where an encoder is not told the caption


def find_shares(folder: Path | None, kind: str, *, names: Sequence[str], length: int | None) -> list[list[Share]]:
    """The shares of the text encoders ``names`` of the pipeline ``kind`` in ``folder``.

    ``length``: tokens that its T5 was asked for; None: the default.

    Raises:
        ConfigError: the pipeline has no such encoder, or only one.
        CheckpointError: a config of an encoder does not tell its width.
    """
    told = next((one.told for one in KINDS if one.name == kind), {})
    if not told or folder is None:
        raise ConfigError(
            "--encoder-dropout is for pipelines of several text encoders, and this one's has one",
            hint="Drop whole captions with --class-dropout.",
        )
    if unknown := [name for name in names if name not in told]:
        raise ConfigError(f"--encoder-dropout {unknown[0]}: the text encoders are {', '.join(told)}")
    tokens = length or length_of(kind) or 0
    shares: dict[str, list[Share]] = {name: [] for name in told}
    ends: dict[str, int] = {}  # of what lies side by side in a return, by its name
    for encoder, parts in told.items():
        for part in parts:
            if part.width is None:
                places: tuple[slice, ...] = (slice(-tokens, None), slice(None)) if part.is_behind else (slice(None),)
            else:
                start = ends.get(part.name, 0)
                ends[part.name] = start + _width(folder, encoder, part)
                places = (slice(start, ends[part.name]),)
                if part.name == "states" and any(one.is_behind for others in told.values() for one in others):
                    places = (slice(None, -tokens), *places)
            shares[encoder].append(Share(part.name, places))
    return [shares[name] for name in names]


def without_withheld(text: dict[str, Tensor], shares: Sequence[Sequence[Share]]) -> dict[str, Tensor]:
    """``text``, what the encoders gave of B captions, with zeros where :data:`withheld` says that one was not told."""
    rows = withheld.value
    if rows is None or not shares:
        return text
    found = dict(text)
    for number, parts in enumerate(shares):
        for name, places in parts:
            value = found[name].clone()
            index = (slice(None),) * (value.ndim - len(places)) + places
            chosen = rows[:, number].to(value.device).view(-1, *[1] * (value.ndim - 1))
            value[index] = torch.where(chosen, 0, value[index])
            found[name] = value
    return found


def _width(folder: Path, encoder: str, part: Told) -> int:
    path = folder / encoder / "config.json"
    width = read_object(path, kind=CheckpointError).get(str(part.width)) if path.exists() else None
    if not isinstance(width, int) or width < 1:
        raise CheckpointError(f"{path} does not say its {part.width}, which tells the encoder's part of a caption")
    return width
