"""The captions used so far. A caption is passed on as its index in a table, as a class is.

Loss, sampling and dropout therefore treat both alike.
Letters: B batch, S tokens of a caption, E width of a token's state, P of a pooled one.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from .encoder_shares import Share, without_withheld
from .encoders import Encoders, depart

KEPT_BYTES = 1 << 30  # memory for encoded captions
_FEW = 10_000  # captions that stay in the table, encoded or not


class Kept(Protocol):
    """Where captions may be found encoded, such as a text store."""

    def find(self, caption: str) -> dict[str, Tensor] | None:
        """What the encoders gave of a caption, by name, without a batch; None: it is not here."""


class CaptionTable:
    """A table of captions. Encodings are kept while there is room. Index 0 is the empty caption, the null condition.

    ``load`` loads the encoders once more, should they be needed after they have left memory.
    """

    def __init__(
        self, encoder: Encoders, *, kept_bytes: int = KEPT_BYTES, load: Callable[[], Encoders] | None = None
    ) -> None:
        self.encoder, self._kept_bytes, self._load = encoder, kept_bytes, load
        self.store: Kept | None = None  # where captions are looked for first
        self.shares: Sequence[Sequence[Share]] = ()  # of encoders that training withholds captions from
        self._texts = {0: ""}  # by index
        self._next = 1  # index of the next new caption
        self._index = {"": 0}
        self._lengths: dict[int, int] = {}  # by index, of captions that were looked up
        self._kept: OrderedDict[int, dict[str, Tensor]] = OrderedDict()  # least recently used first

    def indices(self, captions: Sequence[str]) -> Tensor:
        """The indices (B,) of captions. New captions are added to the table."""
        for caption in captions:
            if caption not in self._index:
                self._index[caption], self._texts[self._next] = self._next, caption
                self._next += 1
        found = [self._index[caption] for caption in captions]
        return torch.tensor(found, dtype=torch.int64, device=self.encoder.device)

    def caption(self, index: int) -> str:
        """The caption with this index."""
        return self._texts[index]

    def forget(self) -> None:
        """Leave out the captions whose encodings are not kept. None of their indices may be in use any longer."""
        if len(self._texts) > 2 * len(self._kept) + _FEW:
            self._texts = {index: text for index, text in self._texts.items() if index in self._kept or not index}
            self._index = {text: index for index, text in self._texts.items()}
            self._lengths = {index: length for index, length in self._lengths.items() if index in self._texts}

    def look_up(self, condition: Tensor) -> dict[str, Tensor]:
        """What the encoder gives for the captions with the indices ``condition`` (B,), by name.

        ``states`` (B, S, E) in float32 and ``mask`` (B, S) are always there; ``pooled`` (B, P) where the backbone
        reads it.
        """
        if torch.compiler.is_compiling():
            return _outside(self, condition)
        return self._look_up(condition)

    def _look_up(self, condition: Tensor) -> dict[str, Tensor]:
        wanted = condition.tolist()
        rows = {index: self._kept[index] for index in wanted if index in self._kept}
        for index in dict.fromkeys(wanted):
            if index not in rows:
                rows[index] = self._find(self._texts[index])
                self._lengths[index] = len(rows[index]["states"])
        self._keep(rows)
        # The encoders may be on another device than the backbone.
        names = rows[wanted[0]]
        found = {name: _stack([rows[index][name] for index in wanted]).to(condition.device) for name in names}
        return without_withheld(found, self.shares)

    def lengths(self, condition: Tensor) -> list[int]:
        """Tokens of each caption in ``condition`` (B,), which :meth:`look_up` has found."""
        return [self._lengths[index] for index in condition.tolist()]

    def hold(self, captions: Iterable[str]) -> bool:
        """Encode captions and the empty one and keep them in memory, if there is room for all; whether there is."""
        wanted = sorted({int(index) for index in self.indices(["", *captions])})
        self.look_up(torch.tensor(wanted[:1]))
        if len(wanted) > self.room(self._kept[wanted[0]]):
            return False
        for index in wanted:
            self.look_up(torch.tensor([index]))
        return True

    def release(self) -> None:
        """Let the encoders leave memory. A caption that is found nowhere brings them back."""
        if self._load is None:
            return
        device = self.encoder.device
        self.encoder = depart(self.encoder, self._load)
        gc.collect()  # models of transformers hold on to themselves
        if device.type == "cuda":
            torch.cuda.empty_cache()  # others are to have the room, other processes too

    def _find(self, caption: str) -> dict[str, Tensor]:
        stored = None if self.store is None else self.store.find(caption)
        if stored is not None:
            return {name: value.to(self.encoder.device) for name, value in stored.items()}
        # one at a time, because the last digits of an encoding depend on the batch size
        return {name: part[0] for name, part in self.encoder.encode([caption]).items()}

    def _keep(self, rows: dict[int, dict[str, Tensor]]) -> None:
        """Keep these encodings, and drop the least recently used ones that exceed the room."""
        for index, row in rows.items():
            self._kept[index] = row
            self._kept.move_to_end(index)
        if 0 in self._kept:
            self._kept.move_to_end(0)  # nearly every batch has the null caption, so it is never dropped
        room = self.room(next(iter(rows.values())))
        while len(self._kept) > room:
            self._kept.popitem(last=False)

    def room(self, row: dict[str, Tensor]) -> int:
        """How many captions such as ``row`` are kept in memory."""
        size = sum(part.numel() * part.element_size() for part in row.values())
        return max(1, self._kept_bytes // size)


def _stack(rows: Sequence[Tensor]) -> Tensor:
    """Rows as one batch, states in float32; shorter captions are padded with zeros, which their masks leave out."""
    # Before they are put together, which autocast would do in a type of its own.
    rows = [row.float() if row.is_floating_point() else row for row in rows]
    longest = max(len(row) for row in rows)
    if all(len(row) == longest for row in rows):
        return torch.stack(rows)
    return torch.stack([pad(row, (0, 0) * (row.ndim - 1) + (0, longest - len(row))) for row in rows])


# A graph of this would be one of a batch's captions, and would compile the text encoders too: it is called from outside
# of all graphs. Only compiled code asks for it, as the wrapper imports the whole compiler.
@torch._disable_dynamo
def _outside(captions: CaptionTable, condition: Tensor) -> dict[str, Tensor]:
    return captions._look_up(condition)
