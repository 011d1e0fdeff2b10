"""Damaged, cut and misplaced files of a latent store are noticed and made again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dmp_cli.data.readers import Damaged
from tests.builders import write_images

from .stores import COUNT, contents, make, store_of


def test_every_flipped_bit_is_noticed_and_mended(data: Path, tmp_path: Path) -> None:
    make(store_of(data, tmp_path / "whole"), data)
    whole = contents(tmp_path / "whole")
    name, original = "00001.safetensors", whole["00001.safetensors"]
    for place in sorted({*range(0, 700, 7), *range(700, len(original), 1409), len(original) - 1}):
        store = store_of(data, tmp_path / "whole")
        store.file(1).write_bytes(original[:place] + bytes([original[place] ^ 4]) + original[place + 1 :])
        before = store.file(1).read_bytes()
        try:
            values = [store.read(index, mirrored=mirrored) for index in range(4, 8) for mirrored in (False, True)]
        except Damaged:
            continue
        finally:
            store.file(1).write_bytes(original)
        healthy = store_of(data, tmp_path / "whole")
        expected = [healthy.read(index, mirrored=mirrored) for index in range(4, 8) for mirrored in (False, True)]
        assert all(np.array_equal(one, other) for one, other in zip(values, expected, strict=True)), (place, before)
    damaged = store_of(data, tmp_path / "whole")
    damaged.file(1).write_bytes(original[:-100] + bytes([original[-100] ^ 1]) + original[-99:])
    with pytest.raises(Damaged, match=f"{name} is damaged: image 7 in it"):
        [damaged.read(index, mirrored=True) for index in range(4, 8)]
    assert store_of(data, tmp_path / "whole").missing() == [1]
    make(store_of(data, tmp_path / "whole"), data)
    assert contents(tmp_path / "whole") == whole


@pytest.mark.parametrize("left", [0, 100, -1])
def test_a_file_cut_short_is_made_again(data: Path, tmp_path: Path, left: int) -> None:
    store = store_of(data, tmp_path / "store")
    make(store, data)
    whole = contents(store.path)
    store.file(2).write_bytes(whole["00002.safetensors"][:left])
    again = store_of(data, tmp_path / "store")
    make(again, data)
    assert contents(store.path) == whole


def test_a_file_of_another_place_or_store_is_made_again(data: Path, tmp_path: Path) -> None:
    make(store_of(data, tmp_path / "store"), data)
    other = write_images(tmp_path / "other" / "photos", count=COUNT, size=16, seed=1)
    (other / "0" / "0000.png").write_bytes((other / "0" / "0000.png").read_bytes() + b"\0")  # another size
    make(store_of(other, tmp_path / "foreign"), other)
    whole = contents(tmp_path / "store")
    shutil.copy(tmp_path / "store" / "00000.safetensors", tmp_path / "store" / "00001.safetensors")
    shutil.copy(tmp_path / "foreign" / "00000.safetensors", tmp_path / "store" / "00000.safetensors")
    store = store_of(data, tmp_path / "store")
    assert store.missing() == [0, 1]
    make(store, data)
    assert contents(tmp_path / "store") == whole
