"""``dmp sample`` with several patches: their sum, recorded with each strength, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dmp_cli import attach, load_backbone, load_patch, save_patch
from tests.builders import TOLD, filled_patch, tiny_dit, write_meta_checkpoint

from .conftest import Run

HOW = ("--sampler", "ddim", "--steps", 3, "-n", 2, "-q")


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    """Two patches of a tiny DiT, as a.safetensors and b.safetensors."""
    backbone = load_backbone(str(write_meta_checkpoint(tmp_path / "tiny.pt", tiny_dit())), **TOLD)
    for name, seed in (("a", 0), ("b", 1)):
        save_patch(tmp_path / f"{name}.safetensors", filled_patch(backbone, seed=seed))
    return tmp_path


def images(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / f"{index:06d}.png")) for index in range(2)]).astype(int)


def made(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "samples.json").read_text())


def test_patches_add_up_each_with_its_strength(run: Run, patches: Path) -> None:
    run("sample", "--patch", "a.safetensors", *HOW, "-o", "a")
    run("sample", "--patch", "a.safetensors", "--patch", "b.safetensors:0", *HOW, "-o", "a-alone")
    run("sample", "--patch", "a.safetensors", "--patch", "b.safetensors:0.5", *HOW, "-o", "both")
    assert (images(patches / "a") == images(patches / "a-alone")).all()
    assert (images(patches / "a") != images(patches / "both")).any()
    digests = [hashlib.sha256((patches / f"{name}.safetensors").read_bytes()).hexdigest() for name in "ab"]
    assert made(patches / "both")["made"]["patch"] == [[digests[0], 1.0], [digests[1], 0.5]]
    assert made(patches / "both")["origin"]["given"]["patch"] == ["a.safetensors", "b.safetensors:0.5"]
    assert made(patches / "a")["made"]["patch"] == digests[0]
    assert made(patches / "a")["origin"]["given"]["patch"] == "a.safetensors"


def test_what_is_drawn_is_what_the_library_draws(run: Run, patches: Path) -> None:
    run("sample", "--patch", "a.safetensors", "--patch", "b.safetensors:0.5", *HOW, "-o", "both")
    backbone = load_backbone("tiny.pt", **TOLD)
    patched = attach(backbone, load_patch(patches / "a.safetensors"), name="a")
    attach(patched, load_patch(patches / "b.safetensors"), name="b", strength=0.5)
    from dmp_cli.config import SampleConfig
    from dmp_cli.latents.codec import PixelCodec
    from dmp_cli.sampling import resolve, sample

    config = SampleConfig(num_images=2, sampler="ddim", steps=3, guidance=1.5, batch_size=2)
    with torch.no_grad():
        (drawn,) = sample(patched, backbone=backbone, codec=PixelCodec(3), config=resolve(config, backbone))
    assert abs(np.stack([one.pixels for one in drawn]).astype(int) - images(patches / "both")).max() <= 1


def test_a_strength_behind_the_name_is_that_of_the_option(run: Run, patches: Path) -> None:
    run("sample", "--patch", "a.safetensors:0.5", *HOW, "-o", "colon")
    run("sample", "--patch", "a.safetensors", "--strength", 0.5, *HOW, "-o", "option")
    assert (images(patches / "colon") == images(patches / "option")).all()
    assert made(patches / "colon")["made"] == made(patches / "option")["made"]


def test_other_strengths_do_not_continue(run: Run, patches: Path) -> None:
    both = ("sample", "--patch", "a.safetensors", "--patch")
    run(*both, "b.safetensors:0.5", *HOW, "-o", "both")
    assert "patch" in run(*both, "b.safetensors:0.6", *HOW, "-o", "both", code=1).stderr


def test_a_file_of_options_names_one_or_several(run: Run, patches: Path) -> None:
    (patches / "one.toml").write_text('patch = "a.safetensors"\n')
    (patches / "two.toml").write_text('patch = ["a.safetensors", "b.safetensors:0.5"]\n')
    run("sample", "--config", "one.toml", *HOW, "-o", "one")
    run("sample", "--config", "two.toml", *HOW, "-o", "two")
    assert isinstance(made(patches / "one")["made"]["patch"], str)
    assert len(made(patches / "two")["made"]["patch"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--patch", "a.safetensors", "--patch", "b.safetensors", "--strength", 0.5), "--strength is for one patch"),
        (("--patch", "a.safetensors:0.5", "--strength", 0.5), "--strength is for one patch"),
        (("--patch", "a.safetensors", "--patch", "a.safetensors:2"), "is given twice"),
        (
            (
                "--patch",
                "a.safetensors:much",
            ),
            "much is no strength, such as 0.5",
        ),
        (
            (
                "--patch",
                "missing.safetensors:0.5",
            ),
            "missing.safetensors",
        ),
    ],
)
def test_what_is_refused(run: Run, patches: Path, arguments: tuple[Any, ...], message: str) -> None:
    assert message in run("sample", *arguments, *HOW, "-o", "out", code=1).stderr
    assert not (patches / "out").exists()
