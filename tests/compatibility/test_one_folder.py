"""Files that the version before the wings wrote are opened, continued and scored as that version did it itself."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dmp_cli import attach, load_patch
from dmp_cli.backbones import as_backbone
from tests.backbones.pipelines import tiny_plain_unet
from tests.commands.conftest import Run, parse

from .make import DIGITS, DRAW, LATENT, VARIANTS, arithmetic

SET = Path(__file__).with_name("one-folder")
MADE = json.loads((SET / "made.json").read_text())
LEVELS, DRIFT = 2, 1e-4  # of 256 levels, and of a weight: what another machine's arithmetic may add up to


@pytest.fixture(scope="module")
def exact() -> bool:
    """Whether this machine computes the very bits of the one that made the set; all bytes must then be equal."""
    return arithmetic() == MADE["arithmetic"]


@pytest.fixture
def old(run: Run, tmp_path: Path) -> Path:
    """A copy of the set, which is the current folder."""
    shutil.copytree(SET, tmp_path, dirs_exist_ok=True)
    return tmp_path


def check_tensors(found: Path, expected: Path, *, exact: bool) -> None:
    ours, theirs = load_file(found), load_file(expected)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor) if exact else torch.allclose(ours[name], tensor, atol=DRIFT), name


def check_images(found: Path, expected: Path, *, count: int, exact: bool) -> None:
    for index in range(count):
        ours, theirs = (np.asarray(Image.open(folder / f"{index:06d}.png")).astype(int) for folder in (found, expected))
        assert abs(ours - theirs).max() <= (0 if exact else LEVELS), index


def sums_of(folder: Path) -> dict[str, str]:
    files = [*folder.glob("*.safetensors"), folder / "manifest.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


RESUMED: dict[str, tuple[Any, ...]] = {
    "run": (*DIGITS, "--data", "images", "--steps", 12),
    "latent-run": (*LATENT, "--data", "colours", "--store-dir", "latents", "--steps", 8),
    "run-lora": (*DIGITS, "--data", "images", "--steps", 8),
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_goes_on_to_the_same_end(name: str, run: Run, old: Path, exact: bool) -> None:
    run("train", "--resume", *RESUMED[name], "-o", name, "--device", "cpu", "-q")
    learnt = ("adapter/adapter_model", "adapter-ema/adapter_model") if "lora" in name else ("patch", "patch-ema")
    for stem in learnt:
        check_tensors(old / name / f"{stem}.safetensors", SET / "expected" / name / f"{stem}.safetensors", exact=exact)
    ours, theirs = ([json.loads(line) for line in (folder / name / "log.jsonl").open()] for folder in (old, SET))
    assert ours[: len(theirs)] == theirs
    assert len(ours) > len(theirs)


def test_a_latent_store_is_used_as_it_is(run: Run, old: Path) -> None:
    before = sums_of(old / "latents")
    result = run("train", "--resume", *RESUMED["latent-run"], "-o", "latent-run", "--device", "cpu")
    assert "encoding" not in result.stderr
    assert sums_of(old / "latents") == before


def test_the_continued_patch_says_of_itself_what_it_said(run: Run, old: Path) -> None:
    before = parse(run("patch", "--info", SET / "expected" / "run" / "patch.safetensors", "--json"))
    run("train", "--resume", *RESUMED["run"], "-o", "run", "--device", "cpu", "-q")
    after = parse(run("patch", "--info", "run/patch.safetensors", "--json"))
    for record in (before, after):
        record["backbone"].pop("source")
        record.pop("rounded")  # new since
        record["training"].pop("dmp")
    assert after == before


@pytest.mark.parametrize("folder", ["samples", "samples-tar"])
def test_a_folder_of_samples_is_whole_and_grows(folder: str, run: Run, old: Path, exact: bool) -> None:
    run("sample", "-o", folder, "--verify")
    source = ("sample", "--patch", "run/patch.safetensors", *DRAW, "-n", 12, "-o", folder, "--device", "cpu", "-q")
    if folder == "samples":
        first = {path.name: path.read_bytes() for path in (old / folder).glob("0*.png")}
        run(*source)
        check_images(old / folder, SET / "expected" / folder, count=12, exact=exact)
        assert all((old / folder / name).read_bytes() == data for name, data in first.items())
    else:
        run(*source, "--tar")
        expected = SET / "expected" / folder
        same = (old / folder / "samples-00000.tar").read_bytes() == (expected / "samples-00000.tar").read_bytes()
        assert same or not exact
    run("sample", "-o", folder, "--verify", "-n", 12)


@pytest.mark.parametrize("name", [*VARIANTS, "lora", "full"])
def test_every_variant_draws_the_same_images(name: str, run: Run, old: Path, exact: bool) -> None:
    sources: dict[str, tuple[Any, ...]] = {
        "lora": (*DIGITS, "--adapter", "run-lora/adapter"),
        "full": ("--backbone", "run-full/backbone.safetensors"),
    }
    source = sources.get(name, ("--patch", f"variants/{name}.safetensors"))
    run("sample", *source, *DRAW, "-n", 4, "-o", "drawn", "--device", "cpu", "-q")
    check_images(old / "drawn", SET / "expected" / "variants" / name, count=4, exact=exact)


def test_a_bare_latent_backbone_draws_the_same_images(run: Run, old: Path, exact: bool) -> None:
    run("sample", *LATENT, *DRAW, "-n", 4, "-o", "drawn", "--device", "cpu", "-q")
    check_images(old / "drawn", SET / "samples-bare", count=4, exact=exact)


def test_a_patch_on_feature_maps_knows_its_backbone() -> None:
    backbone, patch = as_backbone(tiny_plain_unet()), load_patch(SET / "variants" / "unet.safetensors")
    assert attach(backbone, patch).detach() is backbone  # by digest: other weights are refused
    assert patch.grid is not None


def test_statistics_give_the_same_scores(run: Run, old: Path) -> None:
    score = ("eval", "--samples", "samples", "--features", "digits", "--bootstrap", 2, "--device", "cpu", "--json")
    scored = parse(run(*score, "--reference", "stats.npz", "-o", "again"))
    before = json.loads((SET / "scores" / "report.json").read_text())
    assert scored["rows"][0]["scores"]["fid"]["value"] == pytest.approx(
        before["rows"][0]["scores"]["fid"]["value"], rel=1e-4
    )


def test_a_table_is_baked_alike(run: Run, old: Path, exact: bool) -> None:
    bake = ("patch", "--export", "run/patch.safetensors", "--sampler", "ddim", "--steps", 5)
    run(*bake, "-o", "again.safetensors", "--device", "cpu")
    check_tensors(old / "again.safetensors", SET / "table.safetensors", exact=exact)
