"""The text store: what comes out is what went in, and what was changed since is noticed."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones.text import load_text
from dmp_cli.errors import ConfigError, DataError
from tests.backbones.text_encoders import write_clip, write_t5

from .encoders import LENGTH, LetterEncoders, contents, make, store_of

CAPTIONS = ["fox", "two cats and a bird", "é", "fox"]


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("masked", [False, True])
def test_what_comes_out_is_what_went_in(tmp_path: Path, dtype: str, masked: bool) -> None:
    encoders = LetterEncoders(masked=masked)
    store = store_of(tmp_path / "store", encoders, dtype=dtype)
    make(store, CAPTIONS, encoders)
    assert encoders.asked == ["", "", "fox", "two cats and a bird", "é"]  # the first one only for the size of a row
    precision = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    for copied in (store, pickle.loads(pickle.dumps(store)), store_of(tmp_path / "store", encoders, dtype=dtype)):
        for caption in ("", *CAPTIONS):
            expected, found = encoders.encode([caption]), copied.find(caption)
            assert found is not None
            assert found["states"].dtype == precision
            counted = min(len(caption), LENGTH) if masked else LENGTH
            states = expected["states"][0].to(precision)
            assert torch.equal(found["states"][:counted], states[:counted])
            assert found["states"].shape == states.shape
            assert not found["states"][counted:].any()  # the padding that nobody reads
            assert torch.equal(found["pooled"], expected["pooled"][0].to(precision))
            assert torch.equal(found["mask"], expected["mask"][0])
        assert copied.find("a caption that nobody gave") is None


def test_padding_that_nobody_reads_takes_no_space(tmp_path: Path) -> None:
    sizes = {}
    for masked in (False, True):
        encoders = LetterEncoders(masked=masked)
        store = store_of(tmp_path / str(masked), encoders)
        make(store, [f"{n}" for n in range(50)], encoders)
        sizes[masked] = sum(len(data) for name, data in contents(store.path).items() if name != "manifest.json")
    tokens = 8 + 10 * 7 + 40 * 6  # of the empty caption, of one digit, of two; each of four states and a mask
    assert sizes[False] - sizes[True] == pytest.approx(tokens * 17, abs=40)  # the header's words differ too


def test_a_value_that_the_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    encoders = LetterEncoders(scale=1e6)
    with pytest.raises(DataError, match="gives values that fp16 cannot hold") as caught:
        make(store_of(tmp_path / "half", encoders, dtype="fp16"), ["fox"], encoders)
    assert "--text-dtype bf16" in str(caught.value)
    make(store_of(tmp_path / "whole", encoders, dtype="bf16"), ["fox"], encoders)


def test_every_flipped_bit_is_noticed_and_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    encoders = LetterEncoders(masked=True)
    folder = tmp_path / "store"
    make(store_of(folder, encoders), CAPTIONS, encoders)
    whole = contents(folder)
    (name,) = (name for name in whole if name.endswith(".safetensors"))
    original = whole[name]
    expected = {caption: encoders.encode([caption]) for caption in CAPTIONS}
    for place in range(8 + struct.unpack("<Q", original[:8])[0] % 7, len(original), 13):
        (folder / name).write_bytes(original[:place] + bytes([original[place] ^ 4]) + original[place + 1 :])
        store = store_of(folder, encoders)
        for caption, row in expected.items():
            try:
                found = store.find(caption)
            except DataError:
                assert not (folder / name).exists()  # dropped, to be made again
                break
            if found is None:  # the header: nothing in it is believed
                break
            assert torch.equal(found["pooled"], row["pooled"][0])
            assert torch.equal(found["states"], row["states"][0] * row["mask"][0, :, None])
    (folder / name).write_bytes(original[:-3])
    store = store_of(folder, encoders)
    assert store.missing(CAPTIONS) == CAPTIONS[:3]
    make(store, CAPTIONS, encoders)
    assert contents(folder) == whole


def test_other_encoders_and_other_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store_of(folder, LetterEncoders())
    for encoders, dtype, message in [
        (LetterEncoders(digest="two"), "fp32", "is a text store of something else: other text encoders"),
        (LetterEncoders(), "bf16", "of something else: dtype fp32, not bf16"),
        (LetterEncoders(masked=True), "fp32", "of something else: kind sdxl, not t5"),
    ]:
        with pytest.raises(ConfigError, match=message):
            store_of(folder, encoders, dtype=dtype)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("")
    with pytest.raises(ConfigError, match="holds other files"):
        store_of(tmp_path / "mine", LetterEncoders())


def test_a_file_of_another_store_counts_as_missing(tmp_path: Path) -> None:
    one, two = LetterEncoders(), LetterEncoders(digest="two")
    make(store_of(tmp_path / "one", one), ["fox"], one)
    store = store_of(tmp_path / "two", two)
    for path in (tmp_path / "one").glob("*.safetensors"):
        (tmp_path / "two" / path.name).write_bytes(path.read_bytes())
    store.refresh()
    assert store.missing(["fox"]) == ["fox"]
    make(store, ["fox"], two)
    assert store.missing(["fox"]) == []


@pytest.mark.parametrize("write", [write_clip, write_t5])
def test_tokenizers_are_told_apart_whatever_was_asked_of_them(tmp_path: Path, write: Any) -> None:
    encoder = load_text(write(tmp_path)).encoder
    before = encoder.digest_tokenizers()
    encoder.encode(["a red fox"])
    encoder.count_tokens(["a red fox"])
    assert encoder.digest_tokenizers() == before == load_text(tmp_path).encoder.digest_tokenizers()
    # what transformers 4 writes of a tokenizer is its vocabulary
    file = next(path for name in ("tokenizer", "vocab") if (path := tmp_path / "tokenizer" / f"{name}.json").exists())
    text = file.read_text()
    file.write_text(text.replace('"fox"', '"box"') if write is write_t5 else text.replace('"q</w>"', '"é</w>"', 1))
    assert load_text(tmp_path).encoder.digest_tokenizers() != before
