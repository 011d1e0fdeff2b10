"""How much memory scores take: it does not grow with what there is of each image, beyond a few numbers of 8 bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dmp_cli.config import EvalConfig
from dmp_cli.evaluation.distances import fit_gaussian
from dmp_cli.evaluation.features import load_extractor
from dmp_cli.evaluation.metrics import Setting
from dmp_cli.evaluation.spreads import Scored, replicate
from dmp_cli.evaluation.statistics import Provenance, Statistics, load_statistics, save_statistics
from dmp_cli.storage.mapping import let_go
from tests.traced import growth

WIDTH = 64  # features, 256 bytes an image
FEW, MANY = 10_000, 40_000


def mapped(folder: Path, count: int) -> Statistics:
    """Statistics of random features that are mapped from a file."""
    path = folder / f"{count}.npy"
    np.save(path, np.random.default_rng(count).standard_normal((count, WIDTH), np.float32))
    features = np.load(path, mmap_mode="c")
    return Statistics(fit_gaussian(features), features, Provenance(features="pixels", count=count))


@pytest.mark.parametrize(("bootstrap", "allowed"), [(10, 64), (None, 64)])
def test_resamples_and_influences(tmp_path: Path, bootstrap: int | None, allowed: int) -> None:
    """Counts of one resample at a time, 8 bytes an image each as they are drawn; or the influence of each image."""
    few = {"kid_subsets": 30, "kid_subset_size": 20, "bootstrap": bootstrap}
    config = EvalConfig(samples=[tmp_path], reference=tmp_path, metrics=("fid", "kid"), features="pixels", **few)
    setting = Setting(config, load_extractor("pixels"))

    def work(count: int) -> Callable[[], object]:
        samples = mapped(tmp_path, count)
        return lambda: replicate(samples, samples, setting)

    assert growth(work, FEW, MANY) < allowed


def test_moments(tmp_path: Path) -> None:
    def work(count: int) -> Callable[[], object]:
        features = mapped(tmp_path, count).features
        assert features is not None
        return lambda: fit_gaussian(features)

    assert growth(work, FEW, MANY) < 1


def test_saved_statistics(tmp_path: Path) -> None:
    def write(count: int) -> Callable[[], object]:
        statistics = mapped(tmp_path, count)
        return lambda: save_statistics(tmp_path / f"{count}.npz", statistics)

    assert growth(write, FEW, MANY) < 2
    assert growth(lambda count: lambda: load_statistics(tmp_path / f"{count}.npz"), FEW, MANY) < 2
    written, statistics = load_statistics(tmp_path / f"{FEW}.npz"), mapped(tmp_path, FEW)
    assert isinstance(written.features, np.memmap)
    np.testing.assert_array_equal(written.features, statistics.features)


def test_many_folders_leave_nothing_of_their_images(tmp_path: Path) -> None:
    samples = mapped(tmp_path, 1000)
    config = EvalConfig(samples=[tmp_path], reference=tmp_path, metrics=("fid",), features="pixels")
    scores = replicate(samples, samples, Setting(config, load_extractor("pixels")))
    scored = Scored(tmp_path, samples.provenance, scores, None)
    assert scores["fid"].influence is not None
    kept = scored.without_images().scores["fid"]
    assert kept.influence is not None
    assert (kept.influence.bias, kept.influence.first.size) == (scores["fid"].influence.bias, 0)
    assert kept.values is scores["fid"].values


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell")
def test_pages_of_a_file_are_let_go(tmp_path: Path) -> None:
    def resident() -> int:
        return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

    (tmp_path / "file").write_bytes(bytes(1 << 26))
    rows = np.memmap(tmp_path / "file", np.uint8, "c").reshape(64, -1)
    before, total = resident(), int(rows.sum())
    assert resident() - before > 1 << 25
    let_go(rows[3:5])
    assert resident() - before < 1 << 24
    assert int(rows.sum()) == total
