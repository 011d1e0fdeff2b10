"""Captions that are longer than a text encoder reads: what is cut off, and how many there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from ..backbones import Backbone

_AT_ONCE = 1000  # captions that are taken apart together


class LongCaptions(NamedTuple):
    """The captions that an encoder does not read to their end."""

    found: int
    total: int  # captions looked at
    length: int  # tokens that the encoder reads
    first: str  # the first of them; empty: there is none
    cut: str  # what is not read of it

    def in_words(self, kind: str) -> str:
        """One sentence, of ``kind``: captions, or prompts."""
        if self.total == 1:
            return f"the text encoder reads {self.length} tokens; it does not read: {self.cut}"
        return (
            f"{self.found:,} of {self.total:,} {kind} are longer than the {self.length} tokens that the text encoder "
            f"reads; of the first it does not read: {self.cut}"
        )


def find_long(captions: Iterable[str], backbone: Backbone) -> LongCaptions:
    """Look for captions that the text encoder of ``backbone`` cuts."""
    encoder = backbone.captions.encoder
    count, total, first, cut = 0, 0, "", ""
    for part in _parts(captions):
        total += len(part)
        texts = [text.lower().strip() if encoder.record.kind == "t5" else text for text in part]
        told = encoder.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        for text, tokens in zip(part, told, strict=True):
            if len(tokens) > encoder.length:
                count += 1
                if not first:  # the last token that is read is the end of the text, whatever its length
                    first = text
                    cut = encoder.tokenizer.decode(tokens[encoder.length - 1 : -1], skip_special_tokens=True).strip()
    return LongCaptions(count, total, encoder.length, first, cut)


def _parts(captions: Iterable[str]) -> Iterator[list[str]]:
    stream = iter(captions)
    while part := list(islice(stream, _AT_ONCE)):
        yield part
