"""How much memory a large set of samples takes: some bytes an image, whether it is listed, checked or written."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dmp_cli.config import PlanLine, SampleConfig
from dmp_cli.sampling import packed_records
from dmp_cli.sampling.exports import write_npz
from dmp_cli.sampling.folder import SampleFolder
from dmp_cli.sampling.folder_writer import encode_png
from dmp_cli.sampling.image_names import ImageNames
from dmp_cli.sampling.packed_records import PackedRecords
from dmp_cli.sampling.plan import Plan, read_plan
from dmp_cli.sampling.prompt_file import read_prompts
from dmp_cli.sampling.sampler import chunks
from tests.traced import growth

FEW, MANY = 1000, 3000
GROUP = 1000


def filled(path: Path, count: int) -> SampleFolder:
    """A folder of ``count`` images in tars, all the same, with their sums."""
    folder, data = SampleFolder(path, tar=True), encode_png(np.zeros((2, 2, 1), np.uint8))
    folder.open({"seed": 1}, origin={}, num_images=count, force=False)
    folder.write({0: np.zeros((2, 2, 1), np.uint8)})
    (path / "000000.png").unlink()
    names = [f"{index:06d}.png" for index in range(count)]
    with (path / "SHA256SUMS").open("a") as sums:
        sums.writelines(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name in names[1:])
    for first in range(0, count, GROUP):
        with tarfile.open(path / f"samples-{first // GROUP:05d}.tar", "w") as archive:
            for name in names[first : first + GROUP]:
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return folder


@pytest.mark.slow
def test_a_folder_is_listed_checked_and_written(tmp_path: Path) -> None:
    folders = {count: filled(tmp_path / str(count), count) for count in (FEW, MANY)}

    def work(count: int) -> Callable[[], object]:
        folder = folders[count]

        def complete() -> None:
            assert folder.missing(chunks(SampleConfig(num_images=count)), num_images=count) == []
            assert folder.verify(count) == []
            folder.write_npz(count, None)

        return complete

    assert growth(work, FEW, MANY) < 40
    with np.load(tmp_path / str(FEW) / "samples.npz") as stored:
        assert stored["arr_0"].shape == (FEW, 2, 2, 1)


def test_an_npz_is_written_image_by_image(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    how = {"pixels": lambda index: image, "labels": None}
    assert growth(lambda count: lambda: write_npz(tmp_path / "s.npz", num_images=count, **how), FEW, MANY) < 4


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few lines count as long ones."""
    monkeypatch.setattr(packed_records, "FEW", 100)


@pytest.mark.usefixtures("packed")
def test_prompts_of_a_long_file_stay_on_disk(tmp_path: Path) -> None:
    def work(count: int) -> Callable[[], object]:
        path = tmp_path / f"{count}.txt"
        fox = "a photo of a fox that jumps over a dog which sleeps in the sun"  # longer than what pydantic caches
        path.write_text("".join(f"{fox}, number {index} --d {index}\n" for index in range(count)))

        def read() -> None:
            plan = Plan(SampleConfig(num_images=count), None, read_prompts(path))
            assert sum(1 for _ in plan.rows(count)) == count

        return read

    assert growth(work, FEW, MANY) < 48


@pytest.mark.usefixtures("packed")
def test_a_long_plan_stays_on_disk(tmp_path: Path) -> None:
    def work(count: int) -> Callable[[], object]:
        path = tmp_path / f"{count}.jsonl"
        path.write_text("".join(f'{{"seed": {index}, "class": 1}}\n' for index in range(count)))

        def read() -> None:
            plan = Plan(SampleConfig(num_images=count), read_plan(path))
            assert plan.digest
            assert sum(1 for _ in plan.rows(count)) == count

        return read

    assert growth(work, FEW, MANY) < 100


def test_packed_records_are_those_that_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = [3, None, 3, 1 << 80, None, 3, 1 << 80]
    lines = [PlanLine(seed=seed, place=7 if index == 4 else None) for index, seed in enumerate(seeds)]
    packed = PackedRecords(PlanLine, lines)
    assert list(packed) == lines
    config = SampleConfig(num_images=7)
    for some in (lines, [line for line in lines if (line.seed or 0) < 9]):  # seeds of any size, and those of 64 bits
        one, other = Plan(config, tuple(some)), Plan(config, PackedRecords(PlanLine, some))
        assert one.digest == other.digest
        assert one.text(len(some)) == other.text(len(some))
    assert [Plan(config, packed).item(index).place for index in range(7)] == [0, 1, 1, 0, 7, 2, 1]
    assert [Plan(config, lines[:3]).item(index).place for index in range(3)] == [0, 1, 1]


def test_names_are_as_in_a_set() -> None:
    names = {"000003.png", "000003.latent.npy", "000070.png", "mine.png", "999999999999.png", "3.png"}
    found = ImageNames(names)
    assert (set(found), len(found)) == (names, 6)
    assert all(name in found for name in names)
    assert not any(name in found for name in ("000004.png", "000070.latent.npy", "000099.png", "my.png"))
    assert found.has(3)
    assert not found.has(70, ".latent.npy")
