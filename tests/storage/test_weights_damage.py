"""Weight files that are cut, damaged, of another kind or without weights end in a clean error."""

import random

import pytest
import torch
from safetensors.torch import save_file

from dmp_cli.errors import CheckpointError
from dmp_cli.storage.weights import read_weights
from tests.builders import tiny_dit

from .weight_files import WEIGHTS, same, write

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 2700000000\n"
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>\n" * 20


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00", LFS, HTML, b"PK\x03\x04", bytes(5000)])
def test_other_files_under_a_weight_file_name(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "5f1d0c"])
def test_what_a_file_is_comes_from_its_content(tmp_path, name):
    write(tmp_path / name, WEIGHTS)
    assert same(read_weights(tmp_path / name).tensors, WEIGHTS)
    write(tmp_path / name, WEIGHTS, _use_new_zipfile_serialization=False)
    assert same(read_weights(tmp_path / name).tensors, WEIGHTS)
    save_file(WEIGHTS, tmp_path / name)
    assert same(read_weights(tmp_path / name).tensors, WEIGHTS)


@pytest.mark.parametrize("name", ["a.pt", "old.pt", "a.safetensors"])
def test_cut_files(tmp_path, name):
    path = tmp_path / name
    if name == "a.safetensors":
        save_file(tiny_dit().state_dict(), path)
    else:
        write(path, {"ema": tiny_dit().state_dict()}, _use_new_zipfile_serialization=name == "a.pt")
    data = path.read_bytes()
    for place in range(0, len(data), len(data) // 20):
        path.write_bytes(data[:place])
        with pytest.raises(CheckpointError):
            read_weights(path)


@pytest.mark.parametrize("name", ["a.pt", "old.pt", "a.safetensors"])
@pytest.mark.filterwarnings("ignore")
def test_flipped_bits_never_end_in_a_traceback(tmp_path, name):
    path, numbers = tmp_path / name, random.Random(0)
    if name == "a.safetensors":
        save_file(WEIGHTS, path)
    else:
        write(path, {"ema": WEIGHTS}, _use_new_zipfile_serialization=name == "a.pt")
    data, refused = path.read_bytes(), 0
    for _ in range(150):
        damaged = bytearray(data)
        damaged[numbers.randrange(len(data))] ^= 1 << numbers.randrange(8)
        path.write_bytes(damaged)
        try:
            read_weights(path)
        except CheckpointError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("content", [[1, 2], {}, {"model": {}}, {"lr": 0.1}, {0: torch.ones(1)}, torch.ones(2), "text"])
def test_files_without_weights(tmp_path, content):
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_weights(write(tmp_path / "a.pt", content))


def test_paths_that_are_no_weight_files(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_weights(tmp_path / "a.pt")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(CheckpointError, match="is not a weight file"):
        read_weights(tmp_path / "a.txt")
    with pytest.raises(CheckpointError, match=r"lacks config.json"):
        read_weights(tmp_path)
