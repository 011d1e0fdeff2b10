"""``dmp improve``: the whole road on the digits, killed in every step and continued, and bad input."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dmp_cli.cli import app
from tests.backbones.pipelines import tiny_unet, tiny_vae, write_pipeline
from tests.builders import tiny_dit, write_images, write_meta_checkpoint
from tests.commands.conftest import Run, files_in, parse

TINY = ["--backbone", "digits", "--own-samples", 40, "--steps", 8, "--batch-size", 8, "--lr", 0.02, "-n", 70]
HOW = [*TINY, "--scales", "0.5,2", "--sampling-steps", 3, "--sample-batch-size", 35, "--device", "cpu"]


def drawn(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("0*.png"))}


def test_the_whole_road(run: Run) -> None:
    result = parse(run("improve", *HOW, "-o", "out", "--json"))
    folder, scale = Path("out"), result["scale"]
    assert {path.name for path in folder.iterdir()} == {
        *("improvement.json", "done.json", "result.json", "index.html", "before-after.png"),
        *("digits", "own", "negative", "choice", "result", "scores"),
    }
    assert json.loads((folder / "result.json").read_text()) == result
    choosing = json.loads((folder / "choice/scores/report.json").read_text())
    scoring = json.loads((folder / "scores/report.json").read_text())
    # the scale is that of the best row, and nothing that chose it is scored
    values = [row["scores"]["fid"]["value"] for row in choosing["rows"]]
    assert scale == {1: 0.5, 2: 2.0}[values.index(min(values))]
    assert [report["reference_provenance"]["part"] for report in (choosing, scoring)] == [[0, 2], [1, 2]]
    seeds = {report["rows"][0]["made"]["made"]["sample"]["seed"] for report in (choosing, scoring)}
    assert seeds == {1, 2}
    assert {path.name for path in (folder / "result").iterdir()} == {"base", f"W{scale:g}"}
    assert result["scores"]["result"] == scoring["rows"][1]["scores"]
    assert result["scores"]["base"] == scoring["rows"][0]["scores"]
    assert scoring["rows"][1]["made"]["made"]["sample"]["against_scale"] == scale
    page = (folder / "index.html").read_text()
    for command in (
        "dmp sample --backbone digits -n 40 --tar",
        "dmp train --backbone digits --data out/own",
        "dmp eval",
    ):
        assert command in page
    assert 'src="http' not in page
    # what it says is a command that draws the result
    run(*result["use"].split()[1:], "-n", 70, "--seed", 2, "-o", "again", "-q")
    assert (Path("again") / "000069.png").read_bytes() == (folder / f"result/W{scale:g}/000069.png").read_bytes()
    # run again: nothing is drawn again; one more scale draws only its own
    before = drawn(folder)
    assert parse(run("improve", *HOW, "-o", "out", "--json")) == result
    assert drawn(folder) == before
    more = parse(run("improve", *HOW, "--scales", "0.5,1,2", "-o", "out", "--json"))
    assert {name: stamp for name, stamp in drawn(folder).items() if name in before} == before
    assert list(more["choice"]["scores"]) == ["0.5", "1.0", "2.0"]
    refused = run("improve", *HOW, "--own-samples", 41, "-o", "out", code=1).stderr
    assert "out holds an improvement with other settings: own-samples 40, now 41" in refused


class Killed(BaseException):
    """A kill, as far as this process can take one."""


@pytest.mark.slow
def test_killed_in_every_step_and_continued(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("improve", *HOW, "-o", "straight", "-q")
    steps = len(json.loads(Path("straight/done.json").read_text()))
    room = importlib.import_module("dmp_cli.commands.at_once")
    real, ran = room.run_inside, []  # type: ignore[attr-defined]

    def dies_the_first_time(command: list[str], dmp: Any) -> None:
        real(command, dmp)
        ran.append(command)
        if ran.count(command) == 1:
            raise Killed

    monkeypatch.setattr(room, "run_inside", dies_the_first_time)
    for _ in range(steps):
        with pytest.raises(Killed):
            CliRunner().invoke(app, ["improve", *map(str, HOW), "-o", "killed", "-q"], catch_exceptions=False)
    run("improve", *HOW, "-o", "killed", "-q")
    assert len(ran) == 2 * steps  # each was run again, as nobody knew its end; none a third time
    assert_same(Path("straight"), Path("killed"))


def assert_same(straight: Path, other: Path) -> None:
    for path in sorted(straight.rglob("*")):
        if path.suffix in (".png", ".safetensors", ".tar"):
            assert path.read_bytes() == (other / path.relative_to(straight)).read_bytes(), path
    for name in ("choice/scores/report.json", "scores/report.json"):
        mine, theirs = (json.loads((folder / name).read_text())["rows"] for folder in (straight, other))
        assert [row["scores"] for row in mine] == [row["scores"] for row in theirs]
    assert files_in(straight) == files_in(other)


@pytest.mark.slow
def test_killed_by_the_system_and_continued(run: Run, tmp_path: Path) -> None:
    run("improve", *HOW, "-o", "straight", "-q")
    how: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}}
    typed = [sys.executable, "-m", "dmp_cli", "improve", *map(str, HOW), "-q", "-o", "killed"]
    process = subprocess.Popen(typed, **how)
    for _ in range(6000):
        if (tmp_path / "killed" / "choice/W0.5/000034.png").exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(typed, check=True, **how)
    for path in sorted(Path("straight").rglob("0*.png")):
        assert path.read_bytes() == (Path("killed") / path.relative_to("straight")).read_bytes()


@pytest.mark.parametrize("method", ["dmp", "prompt-tuning", "full"])
def test_other_negatives(run: Run, backbone: list[str], images: Path, method: str) -> None:
    small = ["--own-samples", 8, "--steps", 2, "--batch-size", 4, "-n", 4, "--scales", "1", "--sampling-steps", 2]
    how = ["--reference", images, "--method", method, "--features", "pixels", "--metrics", "fid", "--device", "cpu"]
    result = parse(run("improve", *backbone, *small, *how, "-o", "out", "--json"))
    assert Path(result["negative"]).exists()
    assert list(result["choice"]["scores"]) == ["1.0"]


def test_latents_of_its_own_samples_are_kept(run: Run, tmp_path: Path) -> None:
    tiny_vae().save_pretrained(tmp_path / "vae")
    weights = write_meta_checkpoint(tmp_path / "latent.pt", tiny_dit(in_channels=4))
    network = ["--backbone", weights, "--num-heads", 2, "--num-classes", 4, "--vae", "vae"]
    reference = write_images(tmp_path / "images", count=8, size=tiny_vae_side())
    small = ["--own-samples", 6, "--steps", 2, "--batch-size", 4, "-n", 4, "--scales", "1", "--sampling-steps", 2]
    run("improve", *network, *small, "--reference", reference, "--features", "pixels", "--metrics", "fid", "-q")
    (tar,) = Path("improved/own").glob("*.tar")
    with tarfile.open(tar) as members:
        assert "000005.latent.npy" in members.getnames()
    assert not list(Path(os.environ["DMP_HOME"]).rglob("*.safetensors"))  # no image was encoded


def tiny_vae_side() -> int:
    """Pixels of an image whose latent is as large as the tiny DiT's input."""
    return 8 * 2 ** (len(tiny_vae().config.block_out_channels) - 1)


def test_where_no_scale_helps_it_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # a negative that has learnt nothing but noise: far too large a rate, and scales as large
    wild = [*TINY[:2], "--own-samples", 10, "--steps", 3, "--batch-size", 4, "--lr", 5, "-n", 70, "--scales", "30"]
    shown = run("improve", *wild, "--sampling-steps", 3, "--sample-batch-size", 70, "--device", "cpu", "-o", "out")
    assert "None of the scales 30 has a better FD (digits)" in " ".join(shown.stdout.split())
    result = json.loads(Path("out/result.json").read_text())
    assert result["scale"] is result["use"] is result["scores"] is None
    assert not Path("out/result").exists()
    assert "nothing was scored" in Path("out/index.html").read_text()


def test_dry_run_shows_every_command(run: Run, tmp_path: Path) -> None:
    commands = parse(run("improve", *HOW, "-o", "out", "--dry-run", "--json"))["commands"]
    assert [command.split()[1] for command in commands] == [
        *("sample", "train", "sample", "sample", "sample", "eval"),
        *("sample", "sample", "eval"),
    ]
    assert "--against-scale W " in commands[-2]
    assert not files_in(tmp_path)
    run(
        *commands[1].split()[1:],
        "--data",
        write_images(tmp_path / "x", count=10, classes=10),
        "--grey",
        "--dry-run",
        "-q",
    )


def test_bad_input(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    def message(*words: Any, code: int = 1) -> str:
        return " ".join(run("improve", *words, "-o", "out", code=code).stderr.split())

    assert "no backbone given" in message()
    assert "no real images given" in message(*backbone)
    same = "the samples that are learnt from, that choose and that are scored must be different"
    assert same in message("--backbone", "digits", "--choose-seed", 5, "--score-seed", 5)
    assert same in message("--backbone", "digits", "--seed", 3, "--score-seed", 3)
    assert "--lora-rank is for --method lora or dora, not for dmp" in message(
        "--backbone", "digits", "--method", "dmp", "--lora-rank", 2
    )
    np.savez(tmp_path / "stats.npz", mu=np.zeros(3), sigma=np.eye(3))
    assert "holds statistics, of which no half can be taken" in message(*backbone, "--reference", "stats.npz")
    assert "nowhere" in message(*backbone, "--reference", "nowhere")
    for scales in ("0,1", "1,1", "x", "-1", ""):
        assert "--scales" in message("--backbone", "digits", "--scales", scales)
    assert not Path("out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("years of work")
    assert "exists already" in message("--backbone", "digits", "--force")
    assert files_in(tmp_path / "out") == {"notes.txt"}


def test_scales_may_come_and_go(run: Run, backbone: list[str], images: Path) -> None:
    small = ["--own-samples", 8, "--steps", 2, "--batch-size", 4, "-n", 4, "--sampling-steps", 2, "--device", "cpu"]
    how = [*backbone, *small, "--reference", images, "--method", "full", "--features", "pixels", "--metrics", "fid"]

    def improved(scales: str) -> dict[str, Any]:
        result = parse(run("improve", *how, "--scales", scales, "-o", "out", "--json"))
        assert list(result["choice"]["scores"]) == [str(float(scale)) for scale in scales.split(",")]
        if result["scale"] is not None:  # the scores are those of the scale that is named
            rows = json.loads(Path("out/scores/report.json").read_text())["rows"]
            assert rows[1]["made"]["made"]["sample"]["against_scale"] == result["scale"]
        return result

    both = improved("1,2")
    assert both["scale"] is not None
    other = next(scale for scale in (1, 2) if scale != both["scale"])
    improved(str(other))
    assert improved("1,2") == both
    Path("out/choice/scores/report.json").unlink()
    Path("out/scores/report.json").unlink()
    again = improved("1,2")
    assert again == both


def test_what_scoring_would_refuse_is_refused_before_sampling(
    run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    big = write_images(tmp_path / "big", size=12)
    few = write_images(tmp_path / "few", count=3, classes=1)

    def message(*words: Any, reference: Path = images) -> str:
        shown = run("improve", *backbone, "--reference", reference, *words, "-o", "out", code=1).stderr
        assert not Path("out").exists() or not files_in(Path("out"))
        return " ".join(shown.split())

    pixels = ["--features", "pixels"]
    assert "big holds images of 12x12 pixels, but the samples of 8x8" in message(*pixels, reference=big)
    assert "big holds images of 9x9 pixels" in message(*pixels, "--crop", 9, reference=big)
    assert "big holds images of 12x12 pixels" in message(*pixels, "--crop", "none", reference=big)
    assert "few holds 3 images" in message(*pixels, reference=few)
    assert "few holds 3 images" in message(*pixels, "--metrics", "fid", reference=few)
    assert "need 4 each" in message(*pixels, "--metrics", "fid,prc", reference=few)
    assert "nowhere.pt is neither" in message("--features", "nowhere.pt")
    assert "'foo': Input should be" in message(*pixels, "--metrics", "foo")
    assert "features pixels have none" in message(*pixels, "--metrics", "is")
    text = write_pipeline(tmp_path / "text", tiny_unet())
    read = ["--prompts", "prompts.txt", "--method", "full"]
    Path("prompts.txt").write_text("a fox")
    refused = run("improve", "--backbone", text, "--reference", images, *pixels, *read, "-o", "out", code=1).stderr
    assert "a second backbone that reads text cannot be sampled against" in refused
    said = parse(run("improve", *backbone, "--reference", big, *pixels, "--crop", 8, "--dry-run", "--json"))
    assert "--crop 8" in said["commands"][-1]


def test_force_removes_no_input(run: Run, backbone: list[str], images: Path, checkpoint: Path) -> None:
    small = ["--own-samples", 8, "--steps", 1, "--batch-size", 4, "-n", 4, "--sampling-steps", 2, "--device", "cpu"]
    how = [*small, "--scales", "1", "--features", "pixels", "--metrics", "fid", "--reference", images, "-o", "out"]
    run("improve", *backbone, *how, "-q")
    inside = Path("out/negative/backbone.pt")
    inside.write_bytes(checkpoint.read_bytes())
    words = ["--backbone", inside, *backbone[2:], *how]
    assert f"--force would remove {inside}" in run("improve", *words, "--force", code=1).stderr
    assert inside.exists()


def test_an_option_that_the_first_command_refuses_may_be_changed(run: Run, backbone: list[str], images: Path) -> None:
    small = ["--own-samples", 8, "--steps", 1, "--batch-size", 4, "-n", 4, "--scales", "1", "--features", "pixels"]
    how = [*backbone, *small, "--reference", images, "--device", "cpu", "-o", "out", "-q"]
    assert "ddpm takes at most 1000" in run("improve", *how, "--sampling-steps", 2000, code=1).stderr
    run("improve", *how, "--sampling-steps", 1)
