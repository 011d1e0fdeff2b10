"""``dmp ablate``: the table by hand, two arms over two seeds killed in the middle and continued, and bad input."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.commands import COMMANDS
from tests.backbones.pipelines import tiny_unet, write_pipeline
from tests.builders import write_images
from tests.commands.conftest import Run, files_in, parse

ARMS = """
ema = 0.5

[[arm]]
name = "plain"
title = "plain DMP"

[[arm]]
name = "tuned"
method = "prompt-tuning"
lr = 0.1
lr-schedule = "cosine"
"""
TINY = ["--backbone", "digits", "--steps", 4, "--points", 2, "-n", 70, "--batch-size", 8]
HOW = [*TINY, "--sampling-steps", 3, "--sample-batch-size", 35, "--device", "cpu"]


@pytest.fixture
def arms(run: Run) -> Path:
    Path("arms.toml").write_text(ARMS)
    return Path("arms.toml")


def images(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / "samples").rglob("0*.png")}


def test_the_table_by_hand_and_the_files(run: Run, arms: Path) -> None:
    result = parse(run("ablate", arms, *HOW, "--seeds", 2, "-o", "out", "--json"))
    folder = Path("out")
    tops = {name for name in files_in(folder) if "/" not in name}
    assert tops == {
        "ablation.json", "curves.png", "curves-near.png", "done.json",
        "report.html", "report.json", "report.md", "side-by-side.png",
    }  # fmt: skip
    sets = ["base-seed0", "plain-seed0-step2", "plain-seed0-step4", "tuned-seed0-step4"]  # cosine: at its end only
    sets += [name.replace("seed0", "seed1") for name in sets]
    assert {path.name for path in (folder / "samples").iterdir()} == set(sets)
    assert {path.name for path in (folder / "runs").iterdir()} == {
        "plain-seed0", "plain-seed1", "tuned-seed0", "tuned-seed1",
    }  # fmt: skip
    values = {}
    for seed in (0, 1):
        rows = json.loads((folder / f"scores/seed{seed}/report.json").read_text())["rows"]
        values |= {Path(row["samples"]).name: row["scores"]["fid"]["value"] for row in rows}
    for arm, stem in (("base", "base-seed{}"), ("plain", "plain-seed{}-step4"), ("tuned", "tuned-seed{}-step4")):
        own = [values[stem.format(seed)] for seed in (0, 1)]
        row = next(row for row in result["arms"] if row["name"] == arm)
        assert row["scores"]["fid"]["mean"] == pytest.approx(sum(own) / 2)
        assert row["scores"]["fid"]["std"] == pytest.approx(abs(own[0] - own[1]) / 2**0.5)
        if arm != "base":
            paired = [value - values[f"base-seed{seed}"] for seed, value in enumerate(own)]
            difference = row["scores"]["fid"]["difference"]
            assert difference["seeds"] == pytest.approx(paired)
            assert difference["error"] == pytest.approx(statistics.stdev(paired) / 2**0.5)
    plain = next(row for row in result["arms"] if row["name"] == "plain")
    assert [point["step"] for point in plain["curve"]] == [2, 4]
    page = (folder / "report.html").read_text()
    assert "plain DMP" in page
    assert "dmp train --backbone digits" in page
    assert 'src="http' not in page
    # run again: nothing is drawn again; a third seed leaves the two that are there alone
    before = images(folder)
    run("ablate", arms, *HOW, "--seeds", 2, "-o", "out", "-q")
    assert images(folder) == before
    run("ablate", arms, *HOW, "--seeds", 3, "-o", "out", "-q")
    assert {path: stamp for path, stamp in images(folder).items() if path in before} == before
    assert len(json.loads((folder / "report.json").read_text())["seeds"]) == 3
    refused = run("ablate", arms, *HOW, "--seeds", 2, "-o", "out", "--steps", 6, code=1)
    assert "holds an ablation with other settings: steps 4, now 6" in refused.stderr


def test_a_folder_is_the_same_by_any_path_and_other_inputs_are_refused(run: Run, arms: Path, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", count=40, classes=10, size=8)
    small = ["ablate", arms, *HOW, "--data", data, "--grey", "-n", 70, "--points", 1, "-q"]
    run(*small, "-o", "out")
    before, done = images(Path("out")), Path("out/done.json").read_bytes()
    run(*small, "-o", tmp_path / "out")
    Path("out").rename("moved")
    run(*small, "-o", "moved")
    assert {path.name: stamp for path, stamp in images(Path("moved")).items()} == {
        path.name: stamp for path, stamp in before.items()
    }
    assert (tmp_path / "moved" / "done.json").read_bytes() == done  # no command was run again
    report = (tmp_path / "moved" / "report.json").read_bytes()
    next(data.rglob("*.png")).unlink()
    refused = run(*small, "-o", "moved", "--seeds", 2, code=1).stderr
    assert "holds an ablation with other settings: data " in refused
    assert "; reference " in refused
    assert (tmp_path / "moved" / "report.json").read_bytes() == report


def test_force_removes_an_ablation_and_nothing_else(run: Run, arms: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "notes.txt").write_text("years of work")
    assert "exists already" in run("ablate", arms, *HOW, "-o", thesis, "--force", code=1).stderr
    (thesis / "ablation.json").write_text("{}")
    data = write_images(thesis / "data", count=10, classes=10, size=8)
    inside = run("ablate", arms, *HOW, "--data", data, "-o", thesis, "--force", code=1).stderr
    assert "--force would remove" in inside
    assert (thesis / "notes.txt").exists()
    assert len(list(data.rglob("*.png"))) == 10


def test_dtype_is_that_of_training_and_sampling(run: Run) -> None:
    commands = parse(run("ablate", "table2", *HOW, "--dtype", "bf16", "--dry-run", "--json"))["commands"]
    assert all(("--dtype bf16" in command) == (not command.startswith("dmp eval")) for command in commands)


@pytest.mark.slow
def test_killed_in_the_middle_and_continued(run: Run, arms: Path, tmp_path: Path) -> None:
    command: list[Any] = ["ablate", arms, *HOW, "-q"]
    # All in processes of their own with one thread: the number of threads moves a score in its tenth digit.
    how: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}}
    typed = [sys.executable, "-m", "dmp_cli", *map(str, command), "-o"]
    subprocess.run([*typed, "straight"], check=True, **how)
    kills = 0
    for milestone in ("samples/plain-seed0-step2/000034.png", "runs/tuned-seed0/log.jsonl"):
        process = subprocess.Popen([*typed, "killed"], **how)
        for _ in range(6000):
            if (tmp_path / "killed" / milestone).exists() or process.poll() is not None:
                break
            time.sleep(0.01)
        finished = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += not finished
    assert kills >= 1
    done = images(tmp_path / "killed")
    assert done
    subprocess.run([*typed, "killed"], check=True, **how)
    after = images(tmp_path / "killed")
    assert {path: after[path] for path in done} == done  # no image that was there was drawn again
    for name in ("report.json", "report.md"):
        assert (Path("killed") / name).read_bytes() == (Path("straight") / name).read_bytes()
    for path in sorted((Path("straight") / "samples").rglob("0*.png")):
        assert path.read_bytes() == (Path("killed") / path.relative_to("straight")).read_bytes()


@pytest.mark.parametrize(
    ("table", "count"), [("table2", 3), ("table3", 3), ("table4", 11), ("controls", 12), ("guidance", 4)]
)
def test_named_tables_are_understood(run: Run, tmp_path: Path, table: str, count: int) -> None:
    commands = parse(run("ablate", table, *HOW, "--points", 1, "--dry-run", "--json"))["commands"]
    trains = [command for command in commands if command.startswith("dmp train")]
    assert len(trains) == count
    data = write_images(tmp_path / "data", count=10, classes=10)  # in place of samples that are not drawn yet
    parser = COMMANDS["train"].load("train")
    for command in trains:
        parser.make_context("train", command.split()[2:])  # raises for an option that there is not
    run(*trains[-1].split()[1:], "--data", data, "--grey", "--dry-run", "-q")
    assert not Path("ablations").exists()


@pytest.mark.slow
def test_arms_that_are_sampled_against(run: Run) -> None:
    shared = "own-samples = 40\nlr = 0.02\nbatch-size = 8\n"
    arms = '[[arm]]\nname = "low"\nmethod = "lora"\nlora-rank = 2\n\n[[arm]]\nname = "all"\nmethod = "full"\n'
    Path("arms.toml").write_text(shared + arms)
    small = ["--backbone", "digits", "--steps", 4, "-n", 70, "--sampling-steps", 3, "--sample-batch-size", 35]
    how = ["ablate", "arms.toml", *small, "--scales", "0.5,1", "--metrics", "fid", "--device", "cpu", "-o", "out"]
    result = parse(run(*how, "--seeds", 2, "--json"))
    folder = Path("out")
    # the same own samples and the same base for both arms
    assert {path.name for path in (folder / "samples").iterdir()} == {
        *(f"{name}-seed{seed}" for name in ("base", "own", "choosing") for seed in (0, 1)),
        *(f"{name}-seed{seed}-step4" for name in ("low", "all") for seed in (0, 1)),
    }
    for number, name in enumerate(("low", "all"), start=1):
        for seed in (0, 1):
            rows = json.loads((folder / f"choice/{name}-seed{seed}/scores/report.json").read_text())["rows"]
            values = [row["scores"]["fid"]["value"] for row in rows]
            scale = {0: 0.0, 1: 0.5, 2: 1.0}[values.index(min(values))]
            assert result["arms"][number]["scales"][seed] == scale
            made = json.loads((folder / f"samples/{name}-seed{seed}-step4/samples.json").read_text())["made"]
            assert made["sample"]["against_scale"] == scale
            assert made["sample"]["seed"] == seed
            assert rows[0]["made"]["made"]["sample"]["seed"] == 1_000_000 + seed
    notes = (folder / "report.md").read_text()
    assert "low: W, chosen for each seed by samples of another seed, is" in notes
    before = images(folder)
    assert parse(run(*how, "--seeds", 2, "--json")) == result
    assert images(folder) == before
    refused = run(*how, "--seeds", 2, "--scales", "1", code=1).stderr
    assert "holds an ablation with other settings: scales" in refused
    Path("bad.toml").write_text('[[arm]]\nname = "a"\nmethod = "scratch"\nown-samples = 9\n')
    assert "arm a (line 1): --method 'scratch'" in run("ablate", "bad.toml", *small, "-o", "x", code=1).stderr


def test_table4_names_every_row_of_the_paper(run: Run) -> None:
    commands = parse(run("ablate", "table4", *HOW, "--points", 1, "--dry-run", "--json"))["commands"]
    trains = " | ".join(command for command in commands if command.startswith("dmp train"))
    for options in (
        "--gate attention", "--selection hard", "--scope uniform", "--position prepend", "--depth 1",
        *(f"--balance-importance {i} --balance-load {load}" for i, load in ((0, 0), (0, 1), (1, 0), (1, 2), (2, 1))),
    ):  # fmt: skip
        assert options in trains


def test_a_whole_table4_on_the_digits(run: Run) -> None:
    how = ["--backbone", "digits", "--steps", 1, "-n", 65, "--batch-size", 4, "--sampling-steps", 2, "--device", "cpu"]
    result = parse(run("ablate", "table4", *how, "-o", "out", "--json"))
    assert len(result["arms"]) == 12
    assert all(arm["scores"]["fid"]["std"] is None for arm in result["arms"])
    assert "One seed" in (Path("out") / "report.md").read_text()


def test_bad_input(run: Run) -> None:
    def message(text: str, *more: Any) -> str:
        Path("bad.toml").write_text(text)
        return " ".join(run("ablate", "bad.toml", *HOW, *more, "-o", "out", code=1).stderr.split())

    arm = '[[arm]]\nname = "a"\n'
    first = message(arm + 'gaet = "linear"\n')
    assert "bad.toml, line 3: dmp train has no option gaet" in first
    assert "Did you mean gate" in first
    assert "bad.toml, line 5: dmp train has no option lrr" in message(arm + '[[arm]]\nname = "b"\nlrr = 1\n')
    assert "bad.toml, line 1: seed is the same for all arms" in message("seed = 3\n" + arm)
    assert "arm a (line 1): --gate 'linaer'" in message(arm + 'gate = "linaer"\n')
    assert "arm a (line 1): --depth 9: this backbone has 2 blocks" in message(arm + "depth = 9\n")
    assert "arm a (line 1): --method full trains no patch" in message(arm + 'method = "full"\ndepth = 1\n')
    assert "two arms are called a" in message(arm + arm)
    assert "'base' is not a valid name for an arm" in message('[[arm]]\nname = "base"\n')
    assert "is not valid TOML" in message("[[arm]\n")
    assert "holds no arms" in message("lr = 1\n")
    assert "Did you mean table4" in run("ablate", "tabel4", *HOW, "-o", "out", code=1).stderr
    assert "no data given" in run("ablate", "table2", "--backbone", "dit-b2", "-o", "out", code=1).stderr
    assert "cannot read none.toml" in run("ablate", "none.toml", *HOW, "-o", "out", code=1).stderr
    assert not Path("out").exists()


def test_no_second_backbone_that_reads_text_is_sampled_against(run: Run, images: Path, tmp_path: Path) -> None:
    text = write_pipeline(tmp_path / "pipeline", tiny_unet())
    Path("arms.toml").write_text('[[arm]]\nname = "all"\nmethod = "full"\nown-samples = 40\n')
    how = ["--backbone", text, "--data", images, "--dry-run", "-o", "out"]
    refused = run("ablate", "arms.toml", *how, code=1).stderr
    assert "arm all (line 1): a second backbone that reads text cannot be sampled against" in " ".join(refused.split())
    commands = parse(run("ablate", "guidance", *how, "--json"))["commands"]
    methods = {command.split("--method ")[1].split()[0] for command in commands if command.startswith("dmp train")}
    assert methods == {"lora", "dmp", "prompt-tuning"}
