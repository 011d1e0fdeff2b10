"""``dmp train`` on samples with kept latents: no image is encoded, or one is told why images are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmp_cli.latents.codec import VAECodec
from tests.backbones.pipelines import tiny_vae
from tests.builders import tiny_dit, write_meta_checkpoint

from .conftest import Run, parse

COUNT = 6


@pytest.fixture
def named(run: Run, tmp_path: Path) -> list[Any]:
    """The options of a backbone of latents and its VAE, and a folder ``own`` of six samples with their latents."""
    tiny_vae().save_pretrained(tmp_path / "vae")
    weights = write_meta_checkpoint(tmp_path / "latent.pt", tiny_dit(in_channels=4))
    options = ["--backbone", weights, "--num-heads", 2, "--num-classes", 4, "--vae", "vae"]
    draw(run, options, "own")
    return options


def draw(run: Run, named: list[Any], folder: str, *more: Any) -> None:
    common = ["--steps", 3, "--sampler", "ddim", "--batch-size", 4, "--device", "cpu", "-q", "--keep-latents"]
    run("sample", *named, "-n", COUNT, *common, *more, "-o", folder)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the encoder was given."""
    counts: list[int] = []
    measure = VAECodec.measure
    monkeypatch.setattr(VAECodec, "measure", lambda self, images: counts.append(len(images)) or measure(self, images))
    return counts


def train(run: Run, named: list[Any], folder: str, *more: Any, data: str = "own", code: int = 0) -> Any:
    steps = ["--steps", 4, "--batch-size", 4, "--lr", 0.01, "--sample-every", 0]
    return run("train", *named, "--data", data, *steps, *more, "-o", folder, code=code)


def patch_in(folder: str) -> bytes:
    return Path(folder, "patch.safetensors").read_bytes()


def stores() -> list[Path]:
    return list(Path(os.environ["DMP_HOME"], "latents").glob("*"))


def test_no_image_is_encoded(run: Run, named: list[Any], encoded: list[int]) -> None:
    said = train(run, named, "run", "--no-flip").stderr
    assert "6 latents kept in own: no image is encoded" in said
    assert encoded == []
    assert stores() == []
    train(run, named, "parts", "--no-flip", "--steps", 2, "-q")
    run("train", "--resume", "-o", "parts", "--steps", 4, "--workers", 1, "--store-dir", "unused", "-q")
    draw(run, named, "tars/own", "--tar")
    train(run, named, "packed", "--no-flip", "-q", data="tars/own")
    assert patch_in("run") == patch_in("parts") == patch_in("packed")
    assert encoded == []
    assert not Path("unused").exists()
    train(run, named, "live", "--no-flip", "--no-latent-store", "-q")
    assert sum(encoded) == 16
    assert patch_in("live") != patch_in("run")


def test_where_images_are_encoded_one_is_told_why(run: Run, named: list[Any], encoded: list[int]) -> None:
    tiny_vae(seed=1).save_pretrained("other")
    told = {
        "mirror images have none. --no-flip": [],
        "of another codec": ["--no-flip", "--vae", "other"],
        "as --no-latent-store says": ["--no-flip", "--no-latent-store"],
        "as --latent-store says": ["--no-flip", "--latent-store"],
    }
    for number, (reason, words) in enumerate(told.items()):
        before = len(encoded)
        said = train(run, named, f"run-{number}", *words).stderr
        assert "the latents kept in own are not used, and images are encoded" in said
        assert reason in said.replace("\n", " ")
        assert len(encoded) > before


def test_latents_that_are_damaged_or_missing(run: Run, named: list[Any]) -> None:
    np.save("own/000003.latent.npy", np.zeros((4, 8, 8)))  # float64
    result = train(run, named, "run", "--no-flip", "--json")
    assert parse(result)["skipped_images"] == 1
    assert "000003.latent.npy: it holds float64 (4, 8, 8), not the float32 values of one latent" in result.stderr
    failed = train(run, named, "strict", "--no-flip", "--max-bad", 0, code=1).stderr
    assert "at most 0 may be bad" in failed
    Path("own/000003.latent.npy").unlink()
    failed = train(run, named, "missing", "--no-flip", code=1).stderr
    assert "own holds 5 of its 6 latents: 000003.latent.npy is missing" in failed
    assert len(failed.splitlines()) == 2
