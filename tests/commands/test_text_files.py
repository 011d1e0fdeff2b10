"""Files that a person writes, as any editor leaves them, given to the commands that read them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from dmp_cli.backbones.empty import build_backbone
from dmp_cli.data import find_images
from dmp_cli.errors import CheckpointError
from dmp_cli.sampling import read_plan, read_prompts
from dmp_cli.storage.diffusers_folder import peek_config
from tests.builders import TINY, write_images
from tests.zoo.texts import UNREADABLE, WRITERS

from .conftest import Run, parse

WINDOWS = WRITERS["Notepad, UTF-8 with BOM"]


def write(path: Path, text: str, writer: str = "") -> Path:
    path.write_bytes(WRITERS[writer](text) if writer else WINDOWS(text))
    return path


@pytest.mark.parametrize("writer", WRITERS)
def test_options(writer: str, run: Run, tmp_path: Path) -> None:
    config = write(tmp_path / "a.toml", 'steps = 3\nbatch-size = 4\ndata = "狐"\n', writer)
    plan = parse(run("train", "--config", config, "--dry-run", "--json", code=1))["train"]
    assert (plan["steps"], plan["batch_size"], plan["data"]) == (3, 4, "狐")


@pytest.mark.parametrize("writer", UNREADABLE)
def test_options_in_another_encoding(writer: str, run: Run, tmp_path: Path) -> None:
    written, said = UNREADABLE[writer]
    (tmp_path / "a.toml").write_bytes(written("steps = 3\n"))
    assert f"error: --config a.toml {said}" in run("train", "--config", "a.toml", "--dry-run", code=1).stderr


def test_plans_prompts_arms_and_sizes(run: Run, tmp_path: Path) -> None:
    (first, second) = read_plan(write(tmp_path / "plan.jsonl", '{"seed": 1}\n{"seed": 2}\n'))
    assert (first.seed, second.seed) == (1, 2)
    (fox, bird) = read_prompts(write(tmp_path / "prompts.txt", "a red fox\n# a remark\na blue bird --l 3\n"))
    assert (fox.text, bird.text, bird.guidance) == ("a red fox", "a blue bird", 3.0)
    arms = write(tmp_path / "arms.toml", 'lr = 0.5\n[[arm]]\nname = "one"\ngate = "none"\n')
    result = run("ablate", arms, "--backbone", "digits", "--dry-run")
    assert "--lr 0.5 --gate none" in result.stdout
    arms = write(tmp_path / "arms.toml", 'lr = 0.5\n\n[[arm]]\nname = "one"\nrate = "none"\n')
    assert "arms.toml, line 5: dmp train has no option rate" in run("ablate", arms, "--data", "d", code=1).stderr
    sizes = write(tmp_path / "sizes.json", json.dumps(TINY, indent=1))
    assert build_backbone(str(sizes)).sizes == build_backbone(str(write(sizes, json.dumps(TINY)))).sizes
    sizes.write_bytes(json.dumps(TINY).encode("utf-16"))
    with pytest.raises(CheckpointError, match=r"sizes\.json is UTF-16 text, not UTF-8 text"):
        build_backbone(str(sizes))


def test_configs_of_diffusers(tmp_path: Path) -> None:
    write(tmp_path / "config.json", '{\n"sample_size": 8\n}\n')
    assert peek_config(tmp_path) == {"sample_size": 8}


def test_captions(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", count=3, classes=0)
    write(folder / "0000.txt", "a red fox,\na tail\n")
    write(
        folder / "metadata.jsonl",
        '{"file_name": "0001.png", "text": "a blue\\nbird"}\n\n{"file_name": "0002.png", "text": "a cat"}\n',
    )
    images = find_images(folder)
    assert [images.caption(index) for index in range(3)] == ["a red fox,\na tail", "a blue\nbird", "a cat"]


def test_a_run_whose_settings_were_looked_at_in_notepad(run: Run, backbone: list[str], images: Path) -> None:
    run("train", *backbone, "--data", images, "--steps", 1, "--batch-size", 2, "-o", "out", "-q")
    path = Path("out/config.json")
    write(path, path.read_text())
    run("train", "--resume", "-o", "out", "--steps", 2, "-q")


def test_classes_and_captions_in_shards(tmp_path: Path) -> None:
    write_images(tmp_path, count=2, classes=0)
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for index in range(2):
            shard.add(tmp_path / f"{index:04d}.png", f"{index}.png")
            shard.add(write(tmp_path / "cls", f"{index}\n"), f"{index}.cls")
            shard.add(write(tmp_path / "txt", f"picture\n{index}\n"), f"{index}.txt")
    images = find_images(tmp_path / "a.tar")
    assert images.labels.tolist() == [0, 1]
    assert [images.caption(index) for index in range(2)] == ["picture\n0", "picture\n1"]
