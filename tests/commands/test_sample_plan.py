"""``dmp sample --dry-run``: what it says, that it writes nothing, and that it ends where the command itself would."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.backbones.flow_pipelines import write_sd3_pipeline
from tests.builders import tiny_dit, write_meta_checkpoint

from .conftest import Run, files_in, parse

HOW = ["--steps", 2, "--batch-size", 4, "--device", "cpu"]


def test_a_plan_says_what_is_then_drawn(run: Run, patch: Path, tmp_path: Path) -> None:
    how = ["sample", "--patch", patch, *HOW, "--npz", "-o", "out"]
    before = files_in(tmp_path)
    plan = parse(run(*how, "-n", 6, "--dry-run", "--json"))
    assert files_in(tmp_path) == before
    assert not Path("out").exists()
    run(*how, "-n", 6, "-q")
    images = sorted(Path("out").glob("0*.png"))
    known = {"NNNNNN.png", *(path.name for path in Path("out").iterdir() if not path.name[0].isdigit())}
    assert set(plan["files"]) == {name for name in known if not name.startswith(".")}
    assert (plan["images"]["count"], plan["images"]["done"], len(images)) == (6, 0, 6)
    assert plan["images"]["size"] == "8x8"
    assert plan["disk"]["npz"] == 6 * 8 * 8 * plan["images"]["channels"]
    assert 0 < plan["disk"]["needed"] < plan["disk"]["free"]
    assert plan["memory"]["peak"] > plan["memory"]["weights"] > 0
    again = parse(run(*how, "-n", 9, "--dry-run", "--json"))
    assert (again["images"]["count"], again["images"]["done"], again["images"]["chunks_left"]) == (9, 4, 2)
    (Path("out") / "000001.png").unlink()
    again = parse(run(*how, "-n", 6, "--dry-run", "--json"))
    assert (again["images"]["done"], again["images"]["chunks_left"]) == (2, 1)  # a chunk is drawn whole


def test_its_memory_has_guidance_and_the_other_version(
    run: Run, patch: Path, backbone: list[str], tmp_path: Path
) -> None:
    """Passes of one image run in one batch; a second backbone has weights of its own and runs after ours."""
    other = write_meta_checkpoint(tmp_path / "other.pt", tiny_dit(seed=1))

    def memory(*options: Any) -> tuple[int, int]:
        found = parse(run("sample", *options, *HOW, "-n", 4, "-o", "out", "--dry-run", "--json"))["memory"]
        return found["weights"], found["peak"] - found["weights"]

    weights, alone = memory(*backbone, "--guidance", 1)
    assert memory(*backbone, "--guidance", 2) == (weights, pytest.approx(2 * alone, rel=0.05))
    assert memory(*backbone, "--guidance", 1, "--against", other) == (2 * weights, alone)
    own, patched = memory("--patch", patch, "--guidance", 1)
    assert memory("--patch", patch, "--guidance", 1, "--against", "base") == (own, pytest.approx(2 * patched, rel=0.2))
    assert memory("--patch", patch, "--guidance", 2, "--against", "base") == (own, pytest.approx(3 * patched, rel=0.2))


def test_a_plan_is_a_few_lines(run: Run, patch: Path, tmp_path: Path) -> None:
    how, before = ["sample", "--patch", patch, *HOW, "-n", 6, "-o", "out", "--dry-run"], files_in(tmp_path)
    shown = run(*how).stdout.splitlines()
    assert [line.split()[0] for line in shown] == [
        *("network", "device", "images", "sampler", "done", "memory", "disk", "files", "time")
    ]
    assert shown[4] == "done       0 of 6; 2 chunks are left"
    timed = run(*how, "--measure").stdout.splitlines()[-1]
    assert re.match(r"time       \d+ s for 6 images, by a chunk that took ", timed)
    assert files_in(tmp_path) == before


def test_it_ends_where_the_command_would(run: Run, patch: Path, backbone: list[str], tmp_path: Path) -> None:
    plan = ["sample", "--dry-run", "--json", *HOW]
    for options, message in (
        (["--patch", "gone.safetensors"], "gone.safetensors"),
        (["--patch", patch, "--backbone", "digits"], "belongs to another backbone"),
        (["--patch", patch, "--classes", 99], "this backbone knows classes"),
        (["--patch", patch, "--prompt", "a fox"], "for backbones that read text"),
        ([*backbone, "--keep-latents"], "denoises pixels"),
    ):
        refused = run(*plan, *options, "-n", 2, "-o", "out", code=1)
        assert message in refused.stderr
        assert parse(refused)["output"] == "out"  # what was understood
    assert not (tmp_path / "out").exists()
    run("sample", "--patch", patch, *HOW, "-n", 2, "-o", "out", "-q")
    before = files_in(tmp_path)
    assert "other settings: " in run(*plan, "--patch", patch, "--seed", 1, "-n", 2, "-o", "out", code=1).stderr
    run(*plan, "--patch", patch, "--seed", 1, "-n", 2, "-o", "out", "--force")
    Path("other").mkdir()
    Path("other/mine.txt").write_text("mine")
    assert "other exists already" in run(*plan, "--patch", patch, "-n", 2, "-o", "other", code=1).stderr
    assert files_in(tmp_path) == before | {"other/mine.txt"}


@pytest.mark.slow
def test_of_text_no_encoder_is_run_and_no_store_begun(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dmp_cli.backbones.text_pipeline import PipelineEncoders

    write_sd3_pipeline(tmp_path / "sd3")
    how = ["sample", "--backbone", "sd3", "--prompt", "a fox", "--text-store", *HOW, "-n", 2, "--dry-run", "--json"]
    before, home = files_in(tmp_path), Path(os.environ["DMP_HOME"])
    assert parse(run(*how, "--measure"))["seconds_an_image"] > 0

    def encode(*given: Any) -> None:
        raise AssertionError("an encoder is run")

    monkeypatch.setattr(PipelineEncoders, "encode", encode)
    assert parse(run(*how))["memory"]["peak"] > 0
    assert files_in(tmp_path) == before
    assert not list(home.glob("texts/*"))
