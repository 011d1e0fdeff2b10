"""``dmp train`` with a latent store: the same patch as without, whoever reads, whatever is damaged or changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.backbones.pipelines import tiny_vae
from tests.builders import tiny_dit, write_images, write_meta_checkpoint

from .conftest import Run, files_in

pytestmark = pytest.mark.filterwarnings("ignore:.*local_dir_use_symlinks.*:UserWarning")


@pytest.fixture
def common(tmp_path: Path) -> list[object]:
    tiny_vae().save_pretrained(tmp_path / "vae")
    weights = write_meta_checkpoint(tmp_path / "latent.pt", tiny_dit(in_channels=4))
    write_images(tmp_path / "photos", size=16)
    named = ["--backbone", weights, "--num-heads", 2, "--num-classes", 4, "--vae", "vae", "--data", "photos"]
    return ["train", *named, "--batch-size", 4, "--lr", 0.01]


def patch_of(folder: str) -> bytes:
    return Path(folder, "patch.safetensors").read_bytes()


def stores() -> list[Path]:
    return sorted(Path(os.environ["DMP_HOME"], "latents").glob("*"))


def test_workers_and_interruptions_change_nothing(run: Run, common: list[object]) -> None:
    said = run(*common, "--steps", 5, "-o", "straight").stderr
    assert "encoding 8 images, 0.00 GB, into" in said
    (store,) = stores()
    assert store.name.startswith("photos-")
    shards = {name for name in files_in(store) if not name.startswith(".locks")}
    assert shards == {"manifest.json", "00000.safetensors", "00000.sources.safetensors"}
    said = run(*common, "--steps", 5, "--workers", 2, "-o", "workers").stderr
    assert "encoding" not in said
    assert f"latent store {store}: 8 images" in said
    run(*common, "--steps", 3, "-o", "parts", "-q")
    run("train", "--resume", "-o", "parts", "--steps", 5, "-q")
    assert patch_of("straight") == patch_of("workers") == patch_of("parts")
    run(*common, "--steps", 5, "--no-latent-store", "-o", "live", "-q")
    live, stored = (load_file(f"{run_}/patch.safetensors") for run_ in ("live", "straight"))
    for name, value in live.items():
        torch.testing.assert_close(stored[name], value, rtol=1e-3, atol=1e-4)
    refused = run("train", "--resume", "-o", "live", "--latent-store", "--steps", 9, code=1).stderr
    assert "other settings: latent-store off, now on" in refused


def test_a_pixel_store_changes_no_bit(run: Run, backbone: list[str], images: Path) -> None:
    options = ["train", *backbone, "--data", images, "--steps", 5, "--batch-size", 4, "-q"]
    run(*options, "-o", "live")
    assert stores() == []
    run(*options, "--store-dir", "kept", "-o", "stored")
    assert stores() == []
    record = json.loads(Path("kept", "manifest.json").read_text())
    assert (record["codec"], record["dtype"], record["shape"]) == ("pixel", "uint8", [1, 3, 8, 8])
    live, stored = (load_file(f"{name}/patch.safetensors") for name in ("live", "stored"))
    assert all(torch.equal(value, stored[name]) for name, value in live.items())
    run(*options, "--latent-store", "-o", "asked")
    assert len(stores()) == 1


def test_its_folder_is_remembered_and_moved_data_are_the_same(run: Run, common: list[object]) -> None:
    run(*common, "--steps", 2, "--store-dir", "kept", "-o", "out", "-q")
    assert "encoding" not in run("train", "--resume", "-o", "out", "--steps", 3).stderr
    assert stores() == []
    Path("photos").rename("pictures")
    said = run(
        *[word if word != "photos" else "pictures" for word in common],
        "--steps",
        1,
        "--store-dir",
        "kept",
        "-o",
        "again",
    ).stderr
    assert "encoding" not in said


def test_damage_is_named_and_mended_by_the_next_run(run: Run, common: list[object]) -> None:
    run(*common, "--steps", 5, "-o", "whole", "-q")
    file = stores()[0] / "00000.safetensors"
    original = file.read_bytes()
    file.write_bytes(original[:-8] + bytes([original[-8] ^ 1]) + original[-7:])
    said = run(*common, "--steps", 20, "-o", "out", code=1).stderr
    assert "00000.safetensors is damaged: image" in said
    assert "Continue with --resume" in said
    assert "Traceback" not in said
    run(*common, "--steps", 5, "-o", "again", "-q")
    assert file.read_bytes() == original
    assert patch_of("again") == patch_of("whole")


def test_changed_data_are_another_store_and_the_old_one_is_named(run: Run, common: list[object]) -> None:
    run(*common, "--steps", 1, "--store-dir", "kept", "-o", "a", "-q")
    run(*common, "--steps", 1, "-o", "b", "-q")
    (before,) = stores()
    write_images(Path("photos"), count=9, size=16)
    assert "a latent store of something else: the data have changed" in run(
        *common, "--steps", 1, "--store-dir", "kept", "-o", "c", code=1
    ).stderr.replace("\n", " ")
    assert f"the data have changed since {before} was made; it can be removed" in run(
        *common, "--steps", 1, "-o", "d"
    ).stderr.replace("\n", " ")
    assert len(stores()) == 2


def test_unreadable_images_are_reported_as_without_a_store(run: Run, common: list[object]) -> None:
    Path("photos", "0", "broken.png").write_bytes(b"nothing")
    result = run(*common, "--steps", 9, "-o", "out")
    assert "broken.png" in result.stderr
    assert "broken.png" in Path("out", "log.jsonl").read_text()
    refused = run(*common, "--steps", 9, "--max-bad", 0, "-o", "strict", code=1).stderr
    assert "at most 0 may be bad" in refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--store-dir", "photos"], "photos holds other files"),
        (["--shard-backbone"], "needs several processes"),
        (["--shard-backbone", "--method", "full"], "--method full changes it"),
        (["--max-bad-steps", "-1"], "--max-bad-steps -1"),
    ],
)
def test_bad_options(run: Run, common: list[object], options: list[str], message: str) -> None:
    assert message in run(*common, "--steps", 1, *options, "-o", "out", code=1).stderr
    assert not Path("out").exists()
