"""``dmp train``: options come from the command line, else from a file, else from a preset."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Run, parse


def test_options_from_a_file_and_the_command_line_wins(
    run: Run, backbone: list[str], images: Path, tmp_path: Path
) -> None:
    own = '[train]\nmethod = "prompt-tuning"\n[sample]\nsteps = 3\n'
    Path("options.toml").write_text(f"batch-size = 2\nlr = 0.5\n{own}")
    result = run(
        *("train", *backbone, "--data", images, "--config", "options.toml", "--lr", 0.25, "--dry-run", "--json")
    )
    plan = parse(result)
    assert plan["train"]["batch_size"] == 2
    assert plan["train"]["lr"] == 0.25
    assert plan["train"]["method"] == "prompt-tuning"
    assert not (tmp_path / "runs").exists()
    Path("typo.toml").write_text("bach-size = 2\n")
    assert "bach_size" in run("train", *backbone, "--data", images, "--config", "typo.toml", code=1).stderr


def test_presets_give_way_to_a_config_and_the_command_line(run: Run, images: Path, backbone: list[str]) -> None:
    Path("own.toml").write_text("[train]\nbatch-size = 4\nlr = 0.5\n")
    plan = ["train", "--preset", "paper-ffhq-l2", "--data", images, "--dry-run", "--json"]
    plain = parse(run(*plan, code=1))  # its weights are not there, which is said on stderr
    assert (plain["backbone"], plain["train"]["steps"], plain["train"]["batch_size"]) == ("dit-l2", 50_000, 128)
    mixed = parse(run(*plan, "--config", "own.toml", "--lr", 0.25, code=1))
    assert (mixed["train"]["steps"], mixed["train"]["batch_size"], mixed["train"]["lr"]) == (50_000, 4, 0.25)
    refused = run("train", "--preset", "paper-ffhq-xl", "--data", images, code=1).stderr
    assert "there is no such preset" in refused
    assert "paper-ffhq-" in refused
    small = ["--steps", 2, "--batch-size", 4, "--image-size", 8, "--sample-every", 0, "-q"]
    run("train", "--preset", "paper-ffhq-b2", *backbone, "--data", images, *small, "-o", "run")
    for again in ([], ["--preset", "paper-ffhq-b2"]):  # said again, it does not undo what was said instead of it
        run("train", "--resume", "-o", "run", *again, "--steps", 3, "-q")
        assert json.loads(Path("run/config.json").read_text())["train"]["batch_size"] == 4
    other = run("train", "--resume", "-o", "run", "--preset", "paper-sd15", code=1).stderr
    assert "was begun with paper-ffhq-b2, not with paper-sd15" in other


def test_a_run_writes_the_file_that_makes_it_again(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    how = ["--lr", 0.01, "--batch-size", 4, "--steps", 2, "--no-flip", "--depth", 1]
    run("train", *backbone, "--data", images, *how, "-o", "first", "-q")
    written = Path("first/run.toml").read_text()
    assert written.startswith("# dmp ")
    (tmp_path / "elsewhere").mkdir()
    run("train", "--config", "first/run.toml", "-o", "elsewhere/second", "-q")
    first, second = (Path(place, "patch.safetensors").read_bytes() for place in ("first", "elsewhere/second"))
    assert first == second
    assert Path("elsewhere/second/run.toml").read_text() == written
    run("train", "--resume", "-o", "first", "--steps", 3, "-q")
    assert "steps = 3" in Path("first/run.toml").read_text()


def test_a_name_stays_a_name_beside_a_folder_that_is_called_the_same(run: Run, tmp_path: Path) -> None:
    from dmp_cli.demo import write_digits

    write_digits(tmp_path / "digits")
    few = ["--steps", 1, "--batch-size", 2, "-q"]
    run("train", "--backbone", "digits", "--data", "digits", *few, "-o", "out")
    assert 'backbone = "digits"' in Path("out/run.toml").read_text()
    run("train", "--resume", "-o", "out", "--steps", 2, "-q")


def test_what_is_misspelt_in_a_file_is_named_with_its_line(run: Run, images: Path) -> None:
    Path("a.toml").write_text("# mine\nseed = 1\n[train]\nsteps = 3\nbach-size = 2\n")
    error = run("train", "--config", "a.toml", "--data", images, code=1).stderr
    assert "--config a.toml, line 5: train has no option bach_size" in error
    assert "Did you mean batch-size" in error
    Path("b.toml").write_text("[trian]\nsteps = 3\n")
    error = run("train", "--config", "b.toml", "--data", images, code=1).stderr
    assert "--config b.toml, line 1: [trian] is named like no command" in error
    assert "Did you mean train" in error
    Path("c.toml").write_text("[train]\nzzzzzzz = 3\n")
    assert "Did you mean" not in run("train", "--config", "c.toml", "--data", images, code=1).stderr
