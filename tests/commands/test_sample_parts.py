"""``dmp sample`` in parts: many processes, shards and kills give the very files of one undisturbed process."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmp_cli.cli import app
from tests.runtime.ports import free_port

from .conftest import Run, files_in, parse

COUNT = 30


@pytest.fixture
def common(patch: Path) -> list[Any]:
    return ["sample", "--patch", patch, "--steps", 4, "--batch-size", 4, "--device", "cpu", "-n", COUNT, "-q"]


def images_in(folder: str | Path) -> dict[str, bytes]:
    """What must be the same however it was made: images, grid, plan, npz, and how they were made."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name[0] not in ".S"}


@pytest.fixture
def straight(run: Run, common: list[Any]) -> dict[str, bytes]:
    run(*common, "-o", "straight")
    return images_in("straight")


def test_shards_one_after_the_other(run: Run, common: list[Any], straight: dict[str, bytes]) -> None:
    for number in (3, 1):
        result = parse(run(*common, "--shard", f"{number}/3", "-o", "parts", "--json"))
        assert result["grid"] is None
    assert result["missing_chunks"] == 3  # the second, the fifth and the eighth of eight
    assert not Path("parts", "grid.png").exists()
    result = parse(run(*common, "--shard", "2/3", "-o", "parts", "--json"))
    assert (result["missing_chunks"], result["drawn_chunks"]) == (0, 3)
    assert images_in("parts") == straight
    sums = {f"SHA256SUMS.{k}-of-3" for k in (1, 2, 3)} | {"SHA256SUMS.records"}
    assert {name for name in files_in(Path("parts")) if "SUMS" in name} == sums
    assert parse(run(*common, "-o", "parts", "--json"))["drawn_chunks"] == 0
    assert subprocess.run("cat SHA256SUMS* | sha256sum --check --quiet", shell=True, cwd="parts").returncode == 0


@pytest.mark.slow
def test_two_processes_of_torchrun(run: Run, common: list[Any], straight: dict[str, bytes]) -> None:
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dmp_cli", *map(str, common), "-o", "two"]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **meet, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert images_in("two") == straight
    sums = {path.name: path.read_text().splitlines() for path in Path("two").glob("SHA256SUMS.*-of-*")}
    assert {name: len(lines) for name, lines in sums.items()} == {"SHA256SUMS.1-of-2": 17, "SHA256SUMS.2-of-2": 15}


@pytest.mark.slow
def test_two_shards_at_once_under_twenty_kills(run: Run, common: list[Any], tmp_path: Path) -> None:
    common = [*common, "--steps", 60]
    run(*common, "-o", "straight")
    start, draw = multiprocessing.get_context("fork"), random.Random(0)

    def begin(shard: int) -> Any:
        options = [*map(str, common), "--shard", f"{shard}/2", "-o", "killed"]
        process = start.Process(target=app, args=(options,), daemon=True)
        process.start()
        return process

    lives, struck = {shard: begin(shard) for shard in (1, 2)}, 0
    for _ in range(20):
        shard = draw.choice((1, 2))
        time.sleep(draw.uniform(0, 0.25))
        struck += lives[shard].is_alive()
        lives[shard].kill()
        lives[shard].join()
        lives[shard] = begin(shard)
    for process in lives.values():
        process.join()
        assert process.exitcode == 0
    assert struck >= 5
    run(*common, "-o", "killed")  # whoever was last may have been killed before the grid
    assert images_in("killed") == images_in("straight")
    assert "as they were written" in run("sample", "-o", "killed", "--verify").stdout


@pytest.mark.parametrize("size", [1, 7, 64])
def test_other_chunks_differ_by_one_level_at_most(
    run: Run, common: list[Any], straight: dict[str, bytes], size: int
) -> None:
    run(*common, "--batch-size", size, "-o", "other")
    for index in range(COUNT):
        one, other = (np.asarray(Image.open(f"{at}/{index:06d}.png")).astype(int) for at in ("other", "straight"))
        assert np.abs(one - other).max() <= 1


def test_verify_names_what_is_wrong(run: Run, common: list[Any], straight: dict[str, bytes]) -> None:
    assert parse(run("sample", "-o", "straight", "--verify", "--json"))["verified"] is True
    Path("straight", "000003.png").unlink()
    Path("straight", "000009.png").write_bytes(straight["000008.png"])
    Path("straight", "holiday.png").write_bytes(straight["000008.png"])
    said = run("sample", "-o", "straight", "--verify", code=1).stderr
    for wrong in ("000003.png is missing", "000009.png was changed", "holiday.png does not belong to these samples"):
        assert wrong in said
    assert "000009.png was changed" in run(*common, "-o", "straight", code=1).stderr
    for name in ("000009.png", "holiday.png"):
        Path("straight", name).unlink()
    run(*common, "-o", "straight")
    assert images_in("straight") == straight
    assert "holds no samples" in run("sample", "-o", "nowhere", "--verify", code=1).stderr


def test_npz_in_adms_format(run: Run, common: list[Any], straight: dict[str, bytes]) -> None:
    run(*common, "--npz", "-o", "straight")
    with np.load("straight/samples.npz") as found:
        assert found["arr_0"].shape == (COUNT, 8, 8, 3)
        assert found["arr_1"].tolist() == [index % 4 for index in range(COUNT)]
        for index in (0, 17, COUNT - 1):
            assert np.array_equal(found["arr_0"][index], np.asarray(Image.open(f"straight/{index:06d}.png")))


def test_a_plan_gives_its_images_again(run: Run, patch: Path, straight: dict[str, bytes]) -> None:
    how = ["sample", "--patch", patch, "--steps", 4, "--batch-size", 4, "--device", "cpu", "-q", "--seed", 7]
    lines = Path("straight", "plan.jsonl").read_text().splitlines()
    assert len(lines) == COUNT
    assert json.loads(lines[5]) == {"index": 5, "seed": 0, "place": 5, "class": 1, "guidance": 1.5}
    run(*how, "--plan", "straight/plan.jsonl", "-o", "again")
    images = {name: data for name, data in straight.items() if name[0] == "0"}
    assert {name: data for name, data in images_in("again").items() if name[0] == "0"} == images
    Path("other.jsonl").write_text('{"class": 1, "seed": 3}\n')
    refused = run(*how, "--plan", "other.jsonl", "-o", "again", code=1).stderr
    assert "made with other settings" in refused
    run(*how, "--plan", "other.jsonl", "-o", "one")
    assert len(list(Path("one").glob("0*.png"))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "0/2"], "give the number of the part"),
        (["--shard", "3/2"], "give the number of the part"),
        (["--shard", "1/2", "--force"], "--force with --shard"),
        (["--guidance-interval", "0.5"], "give two shares of the schedule"),
        (["--guidance-interval", "0.9,0.1"], "give two shares of the schedule"),
        (["--balanced"], "--balanced: 30 images are not a multiple of 4"),
        (["--plan", "none.jsonl"], "cannot read --plan"),
        (["--plan", "none.jsonl", "--classes", "1"], "--plan says classes"),
        (["--plan", "none.jsonl", "--balanced"], "a --plan says the class"),
    ],
)
def test_bad_options(run: Run, common: list[Any], options: list[str], message: str) -> None:
    assert message in run(*common, *options, "-o", "out", code=1).stderr
    assert not Path("out").exists()


def test_a_folder_mixed_from_two_plans_is_found_and_mended(
    run: Run, common: list[Any], straight: dict[str, bytes], tmp_path: Path
) -> None:
    run(*common, "--shard", "1/2", "-o", "one")
    run(*common, "--seed", 9, "--shard", "2/2", "-o", "other")
    for path in [*Path("other").glob("*.png"), Path("other/SHA256SUMS.2-of-2")]:
        shutil.copy(path, Path("one") / path.name)
    said = run("sample", "--verify", "-o", "one", code=1).stderr
    assert "has no recorded checksum" in said
    run(*common, "-o", "one")
    images = {name: data for name, data in straight.items() if name[:6].isdigit()}
    assert {name: Path("one", name).read_bytes() for name in images} == images
    run("sample", "--verify", "-o", "one")
