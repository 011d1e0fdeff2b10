"""Features that are kept while they are computed: shares of processes, kills and damage change no byte."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dmp_cli.evaluation.embedding import Embedded
from dmp_cli.evaluation.extract import find_measurement, measure
from dmp_cli.evaluation.features import Extractor
from dmp_cli.evaluation.kept_features import KeptFeatures, rows_per_file

from .conftest import write_folder


class Stopped(Exception):
    """In place of a kill."""


class Network:
    """Pixels as features; it counts its images, and stops before image ``until``."""

    def __init__(self, until: int | None = None) -> None:
        self.seen, self.until = 0, until

    def __call__(self, images):  # type: ignore[no-untyped-def]
        if self.until is not None and self.seen + len(images) > self.until:
            raise Stopped
        self.seen += len(images)
        return images.flatten(1)

    def extractor(self, *, digest: str = "own") -> Extractor:
        return Extractor("own", 12, digest, lambda image: image.astype(np.float32) / 255, self)


def test_files_hold_whole_batches_and_do_not_ask_how_many_processes_there_are() -> None:
    assert rows_per_file(10, batch_size=4) == 16
    assert rows_per_file(50_000, batch_size=32) == 32 * 25
    assert rows_per_file(10_000_000, batch_size=32) == 32 * 32


def test_what_was_computed_before_a_kill_is_not_computed_again(tmp_path: Path) -> None:
    images, kept = write_folder(tmp_path / "images", 30, seed=0), tmp_path / "kept"
    whole = measure(images, Network().extractor(), batch_size=2)
    with pytest.raises(Stopped):
        measure(images, Network(until=21).extractor(), batch_size=2, folder=kept)
    rest = Network()
    found = measure(images, rest.extractor(), batch_size=2, folder=kept)
    assert rest.seen == 30 - 16  # two files of eight images are there
    assert found.features is not None
    np.testing.assert_array_equal(found.features, whole.features)
    np.testing.assert_array_equal(found.gaussian.covariance, whole.gaussian.covariance)
    assert found.provenance == whole.provenance
    again = Network(until=0)
    np.testing.assert_array_equal(
        measure(images, again.extractor(), batch_size=2, folder=kept).features, whole.features
    )


@pytest.mark.parametrize("total", [2, 3, 7])
def test_shares_of_several_processes_are_the_bytes_of_one(tmp_path: Path, total: int) -> None:
    images = write_folder(tmp_path / "images", 30, seed=0)
    whole, seen = measure(images, Network().extractor(), batch_size=2), []
    for number in reversed(range(total)):
        network = Network()
        one = find_measurement(images, network.extractor(), batch_size=2)
        kept = one.keep_in(tmp_path / "kept")
        assert kept is not None
        one.fill(kept, share=(number, total), stop=lambda: None)
        seen.append(network.seen)
    assert sum(seen) == 30
    assert max(seen) <= 16 or total == 2
    found = measure(images, Network(until=0).extractor(), batch_size=2, folder=tmp_path / "kept")
    np.testing.assert_array_equal(found.features, whole.features)
    assert found.provenance == whole.provenance


def test_features_of_other_images_networks_or_changes_are_not_taken(tmp_path: Path) -> None:
    images = write_folder(tmp_path / "images", 30, seed=0)
    first = images / "000000.png"
    how = {"batch_size": 2}

    def key(**other: object) -> str:
        one = find_measurement(images, Network().extractor(digest=str(other.pop("digest", "own"))), **{**how, **other})
        kept = one.keep_in(tmp_path / "kept")
        assert kept is not None
        return kept.path.name

    plain = key()
    assert key() == plain
    assert len({plain, key(digest="other"), key(part=(0, 2)), key(batch_size=3), key(max_pixels=100)}) == 5
    os.utime(first, ns=(1, 1))  # the file was written again, with as many bytes
    assert key() != plain


def test_damaged_files_are_made_again(tmp_path: Path) -> None:
    images, folder = write_folder(tmp_path / "images", 30, seed=0), tmp_path / "kept"
    whole = measure(images, Network().extractor(), batch_size=2)
    with pytest.raises(Stopped):
        measure(images, Network(until=20).extractor(), batch_size=2, folder=folder)
    for file in folder.rglob("0000?"):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data if file.name == "00000" else data[:-4])
    found = measure(images, Network().extractor(), batch_size=2, folder=folder)
    np.testing.assert_array_equal(found.features, whole.features)
    (file,) = (file for file in folder.rglob("*") if file.is_file())
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    found = measure(images, Network().extractor(), batch_size=2, folder=folder)
    np.testing.assert_array_equal(found.features, whole.features)


def test_what_is_known_of_the_images_is_kept_too(tmp_path: Path) -> None:
    kept = KeptFeatures(tmp_path, {"a": 1}, count=9, batch_size=2)
    rows = np.arange(27, dtype=np.float32).reshape(9, 3)
    assert kept.missing() == [0, 1]
    kept.write(1, Embedded(rows[8:], frozenset({(3, 2)}), 1, ("two",)))
    assert kept.load() is None
    kept.write(0, Embedded(rows[:8], frozenset({(2, 2), (3, 2)}), 2, ("one",)))
    found = kept.load()
    assert found is not None
    np.testing.assert_array_equal(found.rows, rows)
    assert found[1:] == (frozenset({(2, 2), (3, 2)}), 3, ("one", "two"))
    assert isinstance(found.rows, np.memmap)


def test_features_do_not_depend_on_how_many_cores_there_are(tmp_path: Path) -> None:
    images = write_folder(tmp_path / "images", 12, seed=0, size=40)
    torch.manual_seed(0)
    # On some CPUs, two threads add up another sum than one in the second layer.
    layers = [torch.nn.Conv2d(3, 64, 1), torch.nn.ReLU(), torch.nn.Conv2d(64, 80, 1), torch.nn.MaxPool2d(8)]
    network = torch.nn.Sequential(*layers, torch.nn.Flatten())

    def prepare(image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(image.astype(np.float32).transpose(2, 0, 1) / 255)

    shape = Extractor("own", 2000, "own", prepare, network)
    found, threads = [], torch.get_num_threads()
    try:
        for cores in (1, 2, 3):
            torch.set_num_threads(cores)
            found.append(measure(images, shape, batch_size=4).features)
            assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
