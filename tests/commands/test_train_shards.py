"""``dmp train`` on webdataset shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import tiny_dit, write_meta_checkpoint
from tests.data.shard_files import write_shards

from .conftest import Run


@pytest.mark.parametrize("store", ["--latent-store", "--no-latent-store"])
def test_training_from_shards_resumes_bit_for_bit(run: Run, tmp_path: Path, store: str) -> None:
    weights = write_meta_checkpoint(tmp_path / "tiny.pt", tiny_dit())
    write_shards(tmp_path / "data", [3, 3, 2])
    pattern = tmp_path / "data" / "train-{000..002}.tar"
    options = ["--backbone", weights, "--num-classes", 4, "--num-heads", 2, "--batch-size", 3, "--lr", 0.01, store]
    run("train", *options, "--data", pattern, "--steps", 7, "-o", "straight", "-q")
    run("train", *options, "--data", pattern, "--steps", 4, "-o", "parts", "-q")
    run("train", "--resume", "-o", "parts", "--steps", 7, "--workers", 1, "-q")
    straight = (tmp_path / "straight" / "patch.safetensors").read_bytes()
    assert (tmp_path / "parts" / "patch.safetensors").read_bytes() == straight
