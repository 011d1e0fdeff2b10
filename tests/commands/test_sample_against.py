"""``dmp sample --against``: guidance away from another version of the network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from tests.builders import tiny_dit, write_meta_checkpoint
from tests.patching.counting import Graphs

from .conftest import Run, files_in
from .samples import QUICK, bytes_of


@pytest.fixture
def adapter(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> Path:
    options = ["--method", "lora", "--steps", 3, "--batch-size", 4, "--lr", 0.1, "-o", "adapted", "-q"]
    run("train", *backbone, "--data", images, *options)
    return tmp_path / "adapted" / "adapter"


def about(folder: Path) -> dict:
    return json.loads((folder / "samples.json").read_text())


def test_every_kind_of_version(run: Run, patch: Path, adapter: Path, backbone: list[str], tmp_path: Path) -> None:
    other = write_meta_checkpoint(tmp_path / "other.pt", tiny_dit(seed=1))
    digest = hashlib.sha256(patch.read_bytes()).hexdigest()
    asked = {
        "patch-base": (["--patch", patch, "--against", "base"], "base"),
        "bare-patch": ([*backbone, "--against", patch], digest),
        "no-patch": (["--patch", patch, "--no-patch", "--against", patch], digest),
        "bare-adapter": ([*backbone, "--against", adapter], None),
        "adapter-base": ([*backbone, "--adapter", adapter, "--against", "base"], "base"),
        "bare-other": ([*backbone, "--against", other], hashlib.sha256(other.read_bytes()).hexdigest()),
    }
    drawn = {}
    for name, (words, identity) in asked.items():
        run("sample", *words, "-n", 2, *QUICK, "-o", name)
        drawn[name] = bytes_of(tmp_path / name, 2)
        made = about(tmp_path / name)["made"]
        assert identity is None or made["against"] == identity
        assert made["sample"]["against_scale"] == 1.0
    assert drawn["bare-patch"] == drawn["no-patch"]
    assert len({str(images) for images in drawn.values()}) == 5
    run("sample", *backbone, "-n", 2, *QUICK, "-o", "bare")
    assert "against" not in about(tmp_path / "bare")["made"]
    assert "against_scale" not in about(tmp_path / "bare")["made"]["sample"]
    assert bytes_of(tmp_path / "bare", 2) not in drawn.values()


def test_no_distance_gives_the_bytes_of_ours_alone(
    run: Run, patch: Path, adapter: Path, backbone: list[str], tmp_path: Path
) -> None:
    adapted = [*backbone, "--adapter", adapter]
    kinds = {"bare": (backbone, patch), "patched": (["--patch", patch], "base")}
    kinds |= {"bare-lora": (backbone, adapter), "lora": (adapted, "base")}
    for name, (words, other) in kinds.items():
        run("sample", *words, "-n", 2, *QUICK, "-o", name)
        run("sample", *words, "-n", 2, *QUICK, "--against", other, "--against-scale", 0, "-o", f"{name}-0")
        assert bytes_of(tmp_path / name, 2) == bytes_of(tmp_path / f"{name}-0", 2)


def test_compiled(run: Run, patch: Path, backbone: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph for both versions together, and one for ours alone outside the interval: for all steps."""
    graphs, compile = Graphs(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **how: compile(module, backend=graphs, fullgraph=True, **how))
    words = ["sample", *backbone, "-n", 2, *QUICK, "--against", patch, "--against-interval", "0,0.5"]
    for name, more in (("plain", []), ("compiled", ["--compile"])):
        run(*words, *more, "-o", name)
    assert bytes_of(Path("plain"), 2) == bytes_of(Path("compiled"), 2)
    assert graphs.count == 2


def test_it_goes_on_only_as_it_was_begun(run: Run, patch: Path, backbone: list[str], tmp_path: Path) -> None:
    common = ["sample", *backbone, *QUICK, "-o", "s"]
    run(*common, "-n", 2, "--against", patch, "--against-scale", 2)
    before = bytes_of(tmp_path / "s", 2)
    run(*common, "-n", 4, "--against", patch, "--against-scale", 2)
    assert bytes_of(tmp_path / "s", 2) == before
    for words in (["--against", patch], ["--against", patch, "--against-scale", 2, "--against-interval", "0,0.5"], []):
        assert "made with other settings" in run(*common, "-n", 4, *words, code=1).stderr


def test_the_page_of_scores_says_how_to_draw_them_again(run: Run, patch: Path, backbone: list[str]) -> None:
    how = ["--against", patch, "--against-scale", 2, "--against-interval", "0.1,0.9"]
    run("sample", *backbone, "-n", 4, *QUICK, *how, "-o", "s")
    run("eval", "--samples", "s", "--reference", "s", "--features", "pixels", "--crop", "none", "-o", "scores", "-q")
    page = Path("scores/report.html").read_text()
    assert f"--against {patch}" in page
    assert "--against-scale 2 --against-interval 0.1,0.9" in page


def test_what_is_refused(run: Run, patch: Path, adapter: Path, backbone: list[str], tmp_path: Path) -> None:
    before = files_in(tmp_path)
    smaller = write_meta_checkpoint(tmp_path / "smaller.pt", tiny_dit(num_classes=2))
    same = write_meta_checkpoint(tmp_path / "same.pt", tiny_dit())
    refused = {
        "are for --against": [*backbone, "--against-scale", 2],
        "the backbone itself is drawn from": [*backbone, "--against", "base"],
        "an adapter works against the bare backbone only": ["--patch", patch, "--against", adapter],
        "goes without a patch, also behind": [*backbone, "--adapter", adapter, "--against", patch],
        "nowhere.pt does not exist": [*backbone, "--against", "nowhere.pt"],
        "0.9,0.1: give two shares": [*backbone, "--against", patch, "--against-interval", "0.9,0.1"],
        "its class table has 3 rows": [*backbone, "--against", smaller],
        "another noise schedule than the backbone: kind linear, now cosine": [
            *backbone,
            "--schedule",
            "cosine",
            "--against",
            same,
        ],
    }
    for reason, words in refused.items():
        said = run("sample", *words, "-n", 1, *QUICK, "-o", "s", code=1).stderr
        assert reason in said
        assert len(said.splitlines()) <= 2
    assert files_in(tmp_path) == before | {"smaller.pt", "same.pt"}


def test_a_scale_that_makes_samples_diverge_is_seen(run: Run, patch: Path, backbone: list[str]) -> None:
    how = ["--against", patch, "--against-scale", "1e45", "--guidance", 1]
    shown = run("sample", *backbone, "-n", 2, *QUICK, *how, "-o", "s", code=1)
    assert "is not finite" in shown.stderr
    assert not list(Path("s").glob("0*.png"))
