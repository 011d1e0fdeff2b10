"""What is said of output that is there already, and what is said first where several things are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.builders import tiny_dit, write_images, write_meta_checkpoint

from .conftest import Run
from .samples import QUICK


def train_with(backbone: list[str], images: Path) -> list[object]:
    return ["train", *backbone, "--data", images, "--steps", 1, "--batch-size", 2, "-o", "out"]


def test_a_run_that_can_go_on_says_resume_first(run: Run, backbone: list[str], images: Path) -> None:
    how = train_with(backbone, images)
    run(*how, "-q")
    for more in ([], ["--steps", 9], ["--workers", 1]):
        message, hint = run(*how, *more, code=1).stderr.splitlines()
        assert message == "error: out exists already, and holds a run that can go on"
        assert hint.startswith("  Continue it with --resume, ")
        assert hint.index("--resume") < hint.index("-o") < hint.index("--force")


def test_a_run_with_other_settings_says_which_and_not_resume(run: Run, backbone: list[str], images: Path) -> None:
    how = train_with(backbone, images)
    run(*how, "-q")
    other = [*how, "--lr", 0.5, "--gate", "attention", "--seed", 3, "--no-flip"]
    differing = "lr 0.0001, now 0.5; flip on, now off; seed 0, now 3; gate linear, now attention"
    refused = run(*other, code=1).stderr
    assert f"error: out exists already, and holds a run with other settings: {differing}\n" in refused
    assert "--resume" not in refused
    assert f"error: out holds a run with other settings: {differing}; these" in run(*other, "--resume", code=1).stderr
    write_images(images, count=12)
    refused = run(*how, "--resume", code=1).stderr
    assert "with other settings: images " in refused
    assert "images count 8, now 12" in refused


def test_other_weights_are_named_by_their_digests(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    how = train_with(backbone, images)
    run(*how, "-q")
    digest = json.loads(Path("out/config.json").read_text())["backbone"]["digest"]
    write_meta_checkpoint(tmp_path / "tiny.pt", tiny_dit(seed=7))
    assert f"other settings: backbone digest {digest[:12]}…, now " in run(*how, "--resume", code=1).stderr


def test_an_existing_run_is_seen_before_the_weights_are_read(
    run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    how = train_with(backbone, images)
    run(*how, "-q")
    (tmp_path / "tiny.pt").write_bytes(b"no weights")
    assert "out exists already" in run(*how, code=1).stderr


def test_samples_made_otherwise_say_how(run: Run, patch: Path) -> None:
    how = ["sample", "--patch", patch, "-n", 2, *QUICK, "-o", "s"]
    run(*how, "-q")
    said = run(*how, "--seed", 4, "--guidance", 2, code=1).stderr
    assert "error: s holds samples made with other settings: seed 0, now 4; guidance " in said
    bare = run(*how, "--no-patch", code=1).stderr
    assert "other settings: patch " in bare
    assert "…, now none" in bare


@pytest.mark.parametrize("missing", ["--samples", "--reference"])
@pytest.mark.parametrize("kind", ["none", "none.npz", "none-{000..003}.tar"])
def test_missing_paths_come_before_missing_inception_weights(missing: str, kind: str, run: Run, tmp_path: Path) -> None:
    there = write_images(tmp_path / "there", classes=0)
    paths = {"--samples": there, "--reference": there, missing: Path(kind)}
    refused = run("eval", *[word for pair in paths.items() for word in pair], "-o", "scores", code=1).stderr
    assert refused.startswith("error: ")
    assert "none" in refused.splitlines()[0]
    assert "Inception" not in refused
    assert "no Inception weights" in run("eval", "--samples", there, "--reference", there, code=1).stderr


def test_an_unknown_table_comes_before_missing_data(run: Run, backbone: list[str]) -> None:
    assert "error: tabel2 is no table" in run("ablate", "tabel2", code=1).stderr
    assert "error: no data given" in run("ablate", "table2", "--backbone", "dit-b2", code=1).stderr
    refused = run("ablate", "table2", "--backbone", "none.pt", "--data", "nowhere", code=1).stderr
    assert "error: nowhere does not exist" in refused


def test_a_wrong_family_comes_before_its_sizes(run: Run, patch: Path, tmp_path: Path) -> None:
    from tests.backbones.pipelines import tiny_unet

    tiny_unet().save_pretrained(tmp_path / "unet")
    how = ["--checkpoint", "unet", "--schedule", "linear", "-n", 1, *QUICK, "-o", "s"]
    refused = run("sample", "--patch", patch, *how, code=1).stderr
    assert "error: this patch belongs to another backbone: family dit, not unet\n" in refused
