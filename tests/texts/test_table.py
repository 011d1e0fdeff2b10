"""The table of captions with a store: what is found there, what is held in memory, and encoders that come back."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dmp_cli.backbones import CaptionTable
from dmp_cli.errors import CheckpointError

from .encoders import LENGTH, LetterEncoders, make, store_of


class OwnLengths(LetterEncoders):
    """Gives as many states as a caption has letters, as encoders do that pad to no length."""

    def encode(self, captions: Sequence[str]) -> dict[str, Tensor]:
        (caption,) = captions
        found = super().encode([caption])
        return {name: value[:, : len(caption)] if name != "pooled" else value for name, value in found.items()}


def test_captions_are_found_after_the_encoders_left_and_a_new_one_brings_them_back(tmp_path: Path) -> None:
    loaded: list[LetterEncoders] = []

    def load() -> LetterEncoders:
        loaded.append(LetterEncoders(masked=True))
        return loaded[-1]

    encoders = LetterEncoders(masked=True)
    gone = weakref.ref(encoders)
    table = CaptionTable(encoders, load=load)
    record, digest = encoders.record, encoders.digest_tokenizers()
    store = store_of(tmp_path / "store", encoders, dtype="bf16")
    make(store, ["fox", "a bird"], encoders)
    table.store = store
    del encoders
    table.release()
    gc.collect()
    assert gone() is None
    assert table.encoder.record == record
    assert table.encoder.length == LENGTH
    assert table.encoder.digest_tokenizers() == digest
    assert table.encoder.count_tokens(["fox", "longer than any"]) == [3, LENGTH]
    condition = table.indices(["a bird", "", "fox"])
    found, expected = table.look_up(condition), LetterEncoders().encode(["a bird", "", "fox"])
    assert loaded == []
    assert found["states"].dtype == torch.float32
    rounded = (expected["states"] * expected["mask"][..., None]).bfloat16().float()
    assert torch.equal(found["states"], rounded)
    assert torch.equal(found["mask"], expected["mask"])
    with torch.autocast("cpu", dtype=torch.float16):  # which cannot put states of bf16 together
        mixed = table.look_up(table.indices(["fox", "new"]))["states"]
    assert len(loaded) == 1
    assert loaded[0].asked == ["new"]
    assert torch.equal(mixed[1], LetterEncoders().encode(["new"])["states"][0])
    table.look_up(table.indices(["newer"]))
    assert len(loaded) == 1  # they stay
    back = weakref.ref(loaded.pop())
    table.release()
    gc.collect()
    assert back() is None


def test_encoders_that_are_others_when_they_come_back_are_refused() -> None:
    table = CaptionTable(LetterEncoders(), load=lambda: LetterEncoders(digest="two"))
    table.release()
    with pytest.raises(CheckpointError, match="were changed while they were used"):
        table.look_up(table.indices(["fox"]))


def test_what_memory_can_keep_is_held() -> None:
    encoders = LetterEncoders()
    size = sum(value.numel() * value.element_size() for value in encoders.encode(["fox"]).values())
    encoders.asked.clear()
    captions = ["fox", "a bird", "fox"]
    assert not CaptionTable(encoders, kept_bytes=2 * size).hold(captions)
    assert encoders.asked == [""]  # nothing is encoded in vain
    table = CaptionTable(encoders, kept_bytes=3 * size, load=LetterEncoders)
    assert table.hold(captions)
    encoders.asked.clear()
    table.look_up(table.indices(["a bird", "fox", ""]))
    assert encoders.asked == []


def test_captions_of_their_own_lengths_are_padded_to_the_longest() -> None:
    encoders = OwnLengths()
    table = CaptionTable(encoders)
    found = table.look_up(table.indices(["fox", "a bird"]))
    assert found["states"].shape == (2, 6, 4)
    assert found["mask"].tolist() == [[True] * 3 + [False] * 3, [True] * 6]
    assert torch.equal(found["states"][0, :3], encoders.encode(["fox"])["states"][0])
    assert not found["states"][0, 3:].any()
    assert found["pooled"].shape == (2, 3)
