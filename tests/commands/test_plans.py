"""``--dry-run`` of ``patch``, ``convert``, ``inspect-gates`` and of commands that run others: plans that check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.builders import write_images

from .conftest import Run, files_in, parse


def written(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


def first_words(shown: str) -> list[str]:
    return [line.split()[0] for line in shown.splitlines()]


def test_of_a_new_patch(run: Run, backbone: list[str], tmp_path: Path) -> None:
    how = ["patch", *backbone, "-o", "new.safetensors", "--depth", 2]
    before = files_in(tmp_path)
    plan = parse(run(*how, "--dry-run", "--json"))
    assert first_words(run(*how, "--dry-run").stdout) == ["backbone", "patch", "disk", "files"]
    assert "top-k" in run(*how, "--top-k", 99, "--selection", "hard", "--dry-run", code=1).stderr
    assert files_in(tmp_path) == before
    run(*how, "-q")
    size = sum(tensor.nbytes for tensor in load_file("new.safetensors").values())
    assert (plan["blocks"], plan["disk"]["file"]) == (2, size)
    refused = run(*how, "--dry-run", "--json", code=1)
    assert "new.safetensors exists already" in refused.stderr
    assert parse(refused)["output"] == "new.safetensors"
    table = ["patch", "--export", "new.safetensors", *backbone, "--steps", 5, "-o", "t.safetensors"]
    plan = parse(run(*table, "--dry-run", "--json"))
    run(*table, "-q")
    size = sum(tensor.nbytes for tensor in load_file("t.safetensors").values())
    assert (plan["timesteps"], plan["blocks"], plan["disk"]["file"]) == (5, 2, size)


def test_of_a_conversion(run: Run, backbone: list[str], tmp_path: Path) -> None:
    before = files_in(tmp_path)
    plan = parse(run("convert", *backbone, "-o", "out.pt", "--dry-run", "--json"))
    assert plan["as"] == "meta"
    assert plan["disk"]["weights"] == 4 * plan["parameters"] > 0
    assert "gone.pt does not exist" in run("convert", "--backbone", "gone.pt", "-o", "o", "--dry-run", code=1).stderr
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    assert "mine" in run("convert", *backbone, "-o", "mine", "--dry-run", code=1).stderr
    run("convert", *backbone, "-o", "mine", "--force", "--dry-run", code=1)  # as the command: no converted DiT
    assert files_in(tmp_path) == before | {"mine/notes.txt"}


def test_of_a_look_at_a_gate(run: Run, patch: Path, images: Path, tmp_path: Path) -> None:
    how = ["inspect-gates", "--patch", patch, "--data", images, "-n", 3, "--compare", patch, "-o", "gates"]
    before = files_in(tmp_path)
    plan = parse(run(*how, "--dry-run", "--json"))
    assert first_words(run(*how, "--dry-run").stdout) == ["patch", "gate", "compare", "images", "files"]
    assert (plan["blocks"], plan["prompts"], plan["images"]) == (3, 16, 3)
    assert "belongs to another" in run(*how[:3], "--backbone", "digits", "--dry-run", code=1).stderr
    assert "gone" in run(*how[:3], "--data", "gone", "--dry-run", code=1).stderr
    assert files_in(tmp_path) == before
    run(*how, "-q")
    made = {"block-NN.png" if name.startswith("block-") else name for name in files_in(tmp_path / "gates")}
    assert {*plan["files"]} == made
    assert "gates exists already" in run(*how, "--dry-run", code=1).stderr


@pytest.mark.slow
def test_of_an_ablation_that_is_begun(run: Run, tmp_path: Path) -> None:
    arms = '[[arm]]\nname = "a"\n\n[[arm]]\nname = "b"\ngate = "constant"\n'
    Path("arms.toml").write_text(arms)
    data = write_images(tmp_path / "data", count=20, classes=10, size=8)
    how: list[Any] = ["ablate", "arms.toml", "--backbone", "digits", "--data", data, "--grey", "--steps", 2, "-n", 20]
    how += ["--sampling-steps", 2, "-o", "out"]
    plan = parse(run(*how, "--dry-run", "--json"))
    assert (plan["arms"], plan["seeds"], plan["done"]) == (["a", "b"], 1, 0)
    assert first_words(run(*how, "--dry-run").stdout)[:5] == ["arms", "train", "sample", "memory", "commands"]
    run(*how, "-q")
    again = parse(run(*how, "--dry-run", "--json"))
    assert again["done"] == len(again["commands"]) == len(plan["commands"])
    drawn = [written(Path("out/samples"), pattern) for pattern in ("*/0*.png", "*/*")]
    assert drawn[0] <= plan["disk"]["images"] <= 3 * drawn[1]
    sizes = [sum(t.nbytes for t in load_file(path).values()) for path in Path("out/runs").glob("*/patch*.safetensors")]
    assert plan["disk"]["learnt"] == sum(sizes)
    # Value and two moments, of two runs; the larger has one to spare.
    assert plan["disk"]["checkpoints"] == 3 * (sum(sizes) + max(sizes))
    assert (again["disk"]["needed"], again["memory"]) == (0, {})
    # The memory is that of the larger arm, as its own command says it.
    trained = [command for command in plan["commands"] if command.startswith("dmp train")]
    alone = [parse(run(*command.split()[1:], "-o", "alone", "--dry-run", "--json"))["memory"] for command in trained]
    assert plan["memory"]["training"] == max(one["peak"] for one in alone) > min(one["peak"] for one in alone)
    refused = run(*how, "--steps", 3, "--dry-run", "--json", code=1)
    assert "ablation with other settings" in refused.stderr
    assert parse(refused)["output"] == "out"
    assert "gone does not exist" in run("ablate", "arms.toml", *how[2:4], "--data", "gone", "--dry-run", code=1).stderr


@pytest.mark.slow
def test_of_an_improvement_and_a_search(run: Run, tmp_path: Path) -> None:
    improve = ["improve", "--backbone", "digits", "-o", "out", "--dry-run"]
    words = ["own", "train", "sample", "reference", "memory", "commands", "folder", "disk"]
    assert first_words(run(*improve).stdout)[:8] == words
    plan = parse(run(*improve, "--json"))
    assert plan["done"] == 0
    own = [*plan["commands"][0].split()[1:], "-o", "own", "--dry-run", "--json"]
    alone, twice = (parse(run(*own, *more))["memory"]["peak"] for more in ([], ["--guidance", 2]))
    # The samples that choose the scale have two predictions in one batch: one by the negative.
    assert alone < plan["memory"]["sampling"] == twice < plan["memory"]["training"]
    tune = ["tune", "--backbone", "digits", "-o", "out", "--dry-run"]
    assert first_words(run(*tune).stdout)[:5] == ["trials", "final", "folder", "memory", "disk"]
    assert parse(run(*tune, "--json"))["is_begun"] is False
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine")
    assert "out exists already" in run(*improve, code=1).stderr
