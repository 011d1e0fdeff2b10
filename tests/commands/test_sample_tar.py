"""``dmp sample --tar``: the same images in tars, through kills, parts and a larger -n; what reads them."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from PIL import Image

from dmp_cli.data.folder import find_images
from dmp_cli.sampling import tars as sampletars

from .conftest import Run, files_in, parse

OTHERS = {"grid.png", "samples.json", "plan.jsonl", "SHA256SUMS", "SHA256SUMS.records", ".lock"}


@pytest.fixture(autouse=True)
def small_tars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tars of five images."""
    monkeypatch.setattr("dmp_cli.sampling.tars.GROUP", 5)


def common_of(patch: Path) -> list[str]:
    return ["sample", "--patch", str(patch), "--sampler", "ddim", "--steps", "3", "--batch-size", "4", "-q"]


def images_in(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                inner = archive.extractfile(member)
                assert inner is not None
                found[member.name] = inner.read()
    return found


def test_the_images_are_those_of_single_files(run: Run, patch: Path, tmp_path: Path) -> None:
    run(*common_of(patch), "-n", 12, "-o", "files")
    run(*common_of(patch), "-n", 12, "--tar", "--npz", "-o", "tars")
    tars = {f"samples-{k:05d}.tar" for k in range(3)}
    assert files_in(tmp_path / "tars") == OTHERS | tars | {"samples.npz"}
    found = images_in(tmp_path / "tars")
    for index in range(12):
        assert found[f"{index:06d}.png"] == (tmp_path / "files" / f"{index:06d}.png").read_bytes()
        assert found[f"{index:06d}.cls"] == str(index % 4).encode()
    assert len(found) == 24
    assert (tmp_path / "tars" / "grid.png").read_bytes() == (tmp_path / "files" / "grid.png").read_bytes()
    source = find_images(str(tmp_path / "tars" / "samples-*.tar"))
    assert source.labels.tolist() == [index % 4 for index in range(12)]
    with tarfile.open(tmp_path / "tars" / "samples-00002.tar") as archive:
        assert len(archive.getnames()) == 4  # the last two images


def test_a_larger_n_goes_on_in_the_last_tar(run: Run, patch: Path, tmp_path: Path) -> None:
    run(*common_of(patch), "-n", 7, "--tar", "-o", "grown")
    first = (tmp_path / "grown" / "samples-00000.tar").read_bytes()
    run(*common_of(patch), "-n", 14, "-o", "grown")  # a folder with tars stays one
    run(*common_of(patch), "-n", 14, "--tar", "-o", "straight")
    for name in files_in(tmp_path / "straight") - {".lock", "SHA256SUMS"}:
        assert (tmp_path / "grown" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    assert (tmp_path / "grown" / "samples-00000.tar").read_bytes() == first
    assert files_in(tmp_path / "grown") == files_in(tmp_path / "straight")


def test_a_smaller_n_takes_nothing_out_of_a_tar(run: Run, patch: Path, tmp_path: Path) -> None:
    run(*common_of(patch), "-n", 9, "--tar", "-o", "s")
    before = (tmp_path / "s" / "samples-00001.tar").read_bytes()
    # as a kill between the tar's appearing and the removal of what is in it leaves it
    (tmp_path / "s" / "000005.png").write_bytes(images_in(tmp_path / "s")["000005.png"])
    run(*common_of(patch), "-n", 7, "-o", "s")
    assert (tmp_path / "s" / "samples-00001.tar").read_bytes() == before
    assert not (tmp_path / "s" / "000005.png").exists()
    run(*common_of(patch), "-n", 4, "--force", "-o", "s")  # begun anew, and not asked for tars
    assert files_in(tmp_path / "s") == OTHERS | {f"{index:06d}.png" for index in range(4)}


def test_scored_like_single_files(run: Run, patch: Path, images: Path, tmp_path: Path) -> None:
    for name, extra in (("files", []), ("tars", ["--tar"])):
        run(*common_of(patch), "-n", 12, *extra, "-o", name)
    options = ["--reference", images, "--features", "pixels", "--bootstrap", 3, "--json"]
    scores = [
        parse(run("eval", "--samples", n, *options, "-o", f"{n}-s"))["rows"][0]["scores"] for n in ("files", "tars")
    ]
    assert scores[0] == scores[1]
    (tmp_path / "tars" / "000012.png").write_bytes((tmp_path / "files" / "000000.png").read_bytes())
    assert "1 images are not in a tar yet" in run("eval", "--samples", "tars", *options, "-o", "x", code=1).stderr


def test_changed_and_damaged_tars_are_found(run: Run, patch: Path, tmp_path: Path) -> None:
    run(*common_of(patch), "-n", 7, "--tar", "-o", "s")
    before = {name: (tmp_path / "s" / name).read_bytes() for name in files_in(tmp_path / "s")}
    path = tmp_path / "s" / "samples-00001.tar"
    found = images_in(tmp_path / "s")
    place = before[path.name].index(found["000006.png"])
    path.write_bytes(before[path.name][: place + 60] + b"\xff" + before[path.name][place + 61 :])
    assert "000006.png was changed" in run("sample", "--verify", "-o", "s", code=1).stderr
    path.write_bytes(before[path.name][:300])
    assert "samples-00001.tar" in run("sample", "--verify", "-o", "s", code=1).stderr
    path.unlink()
    assert "000005.png is missing" in run("sample", "--verify", "-o", "s", code=1).stderr
    run(*common_of(patch), "-n", 7, "-o", "s")
    assert path.read_bytes() == before[path.name]
    run("sample", "--verify", "-o", "s")


@pytest.mark.slow
def test_two_shards_under_kills_end_with_the_same_tars(run: Run, patch: Path, tmp_path: Path) -> None:
    run(*common_of(patch), "-n", 30, "--tar", "-o", "straight")
    script = """
import sys
from dmp_cli.sampling import tars
tars.GROUP = 5
from dmp_cli.cli import main
main()
"""
    draw = [sys.executable, "-c", script, *common_of(patch), "-n", "30", "--tar", "-o", "killed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    chance = random.Random(0)
    for _ in range(5):
        running = [
            subprocess.Popen([*draw, "--shard", f"{k}/2"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
            for k in (1, 2)
        ]
        deadline = time.monotonic() + chance.uniform(1.2, 3.2)
        while time.monotonic() < deadline and any(one.poll() is None for one in running):
            time.sleep(0.01)
        for one in running:
            one.kill()
            one.wait()
    subprocess.run(draw, cwd=tmp_path, env=environment, check=True)
    tars = {name for name in files_in(tmp_path / "straight") if name.endswith(".tar")}
    assert {name for name in files_in(tmp_path / "killed") if not name.startswith("SHA256SUMS")} == tars | OTHERS - {
        "SHA256SUMS",
        "SHA256SUMS.records",
    }
    for name in tars:
        one, other = (hashlib.sha256((tmp_path / f / name).read_bytes()).digest() for f in ("killed", "straight"))
        assert one == other, name
    assert sampletars.GROUP == 5
    assert Image.open(tmp_path / "killed" / "grid.png").size


def test_its_tars_are_a_data_set_with_classes(run: Run, patch: Path, backbone: list[str], tmp_path: Path) -> None:
    """Without the preview, which lies beside the tars and is no image of the data."""
    run("sample", "--patch", patch, "-n", 8, "--batch-size", 4, "--steps", 2, "--tar", "-o", "own", "-q")
    said = run("train", *backbone, "--data", "own", "--steps", 2, "--batch-size", 4, "-o", "negative").stderr
    assert "8 images" in said
    assert "4 classes" in said
    (tmp_path / "own" / "samples.json").unlink()  # then nobody says that the picture is a preview
    assert "without their samples.json" in run("train", *backbone, "--data", "own", "-o", "other", code=1).stderr
