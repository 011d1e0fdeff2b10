"""What a plan says of a scoring's memory and disk, against what scores of such sets hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmp_cli.config import EvalConfig
from dmp_cli.evaluation.distances import fit_gaussian
from dmp_cli.evaluation.embedding import Embedded
from dmp_cli.evaluation.features import load_extractor
from dmp_cli.evaluation.kept_features import KeptFeatures, kept_bytes
from dmp_cli.evaluation.metrics import Setting
from dmp_cli.evaluation.needs import count_scoring, statistics_bytes
from dmp_cli.evaluation.spreads import replicate
from dmp_cli.evaluation.statistics import Provenance, Statistics, save_statistics
from dmp_cli.runtime import LiveMemory
from tests.traced import peak


def random_features(folder: Path, count: int, width: int) -> np.ndarray:
    """Features (count, width) that are mapped from a file."""
    np.save(folder / "features.npy", np.random.default_rng(0).standard_normal((count, width), np.float32))
    mapped: np.ndarray = np.load(folder / "features.npy", mmap_mode="c")
    return mapped


def statistics_of(features: np.ndarray) -> Statistics:
    return Statistics(fit_gaussian(features), features, Provenance(features="pixels", count=len(features)))


def settings(**how: Any) -> EvalConfig:
    return EvalConfig(samples=[Path("samples")], reference=Path("reference"), features="pixels", **how)


@pytest.mark.parametrize(
    ("how", "count", "width"),
    [
        ({"metrics": ("fid",)}, 6000, 16),
        ({"metrics": ("fid",)}, 150, 100),
        ({"metrics": ("fid",), "bootstrap": 2}, 300, 150),
        ({"metrics": ("fid",), "bootstrap": 2}, 6000, 32),
        ({"metrics": ("fid",), "repeats": 2}, 400, 100),
        ({"metrics": ("kid",), "kid_subsets": 4, "kid_subset_size": 200}, 3000, 32),
        ({"metrics": ("kid",), "kid_subsets": 40, "kid_subset_size": 30, "bootstrap": 20}, 3000, 32),
    ],
)
def test_arrays_of_scores(tmp_path: Path, how: dict[str, Any], count: int, width: int) -> None:
    """All arrays of numpy that are alive at once are counted, and not many more: what LAPACK takes is not seen here."""
    config = settings(**how)
    need = count_scoring(config, width=width, samples=[count], reference=count)
    kept, setting = random_features(tmp_path, count, width), Setting(config, load_extractor("pixels"))

    def score() -> object:
        one, other = (Statistics(fit_gaussian(kept), kept, Provenance(count=count)) for _ in range(2))
        return replicate(one, other, setting)

    replicate(*(statistics_of(kept[:40]) for _ in range(2)), setting)  # loads what is loaded with it
    held = peak(score)
    assert held <= need.peak <= 1.7 * held


@pytest.mark.slow
def test_distances_to_neighbours(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity")
    count, config = 1500, settings(metrics=("prc",), bootstrap=0)
    need = count_scoring(config, width=4, samples=[count], reference=count)
    statistics = statistics_of(random_features(tmp_path, count, 4))
    with LiveMemory() as memory:
        replicate(statistics, statistics, Setting(config, load_extractor("pixels")))
    assert memory.peak <= need.at_work <= 2.5 * memory.peak  # the copies of kthvalue are inside of torch


def test_logits(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity")
    count, classes, config = 2000, 300, settings(metrics=("is",), bootstrap=2)
    need = count_scoring(config, width=4, samples=[count], reference=count, classes=classes)
    statistics = statistics_of(random_features(tmp_path, count, 4))
    weight = np.random.default_rng(1).standard_normal((4, classes), np.float32)
    extractor = replace(load_extractor("pixels"), classify=lambda features: features @ weight)
    with LiveMemory() as memory:
        replicate(statistics, statistics, Setting(config, extractor))
    assert memory.peak <= need.at_work <= 1.3 * memory.peak


def test_it_grows_with_images_by_some_numbers_each() -> None:
    def need(count: int, **how: Any) -> int:
        return count_scoring(settings(**how), width=2048, samples=[count], reference=count).peak

    assert 0 < need(200_000) - need(100_000) <= 100_000 * 8 * 8
    assert 0 < need(200_000, bootstrap=10) - need(100_000, bootstrap=10) <= 100_000 * 8 * 8


def test_files_of_features(tmp_path: Path) -> None:
    """What is on disk while the files of one set become one, beside a set that is whole already."""
    features = np.random.default_rng(0).standard_normal((100, 24), np.float32)
    for number in range(2):
        kept = KeptFeatures(tmp_path, {"set": number}, count=100, batch_size=2)
        for file, span in enumerate(kept.spans):
            kept.write(file, Embedded(features[span.start : span.stop], frozenset({(8, 8)}), 0))
        if number == 0:
            kept.load()
    apart = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    kept.load()
    most = apart + (kept.path / "whole").stat().st_size
    assert most <= kept_bytes([100, 100], width=24, batch_size=2) <= 1.5 * most
    assert kept_bytes([8, 8], width=24, batch_size=2) == 0  # one file: kept nowhere


def test_saved_statistics(tmp_path: Path) -> None:
    save_statistics(tmp_path / "saved.npz", statistics_of(random_features(tmp_path, 400, 30)))
    assert statistics_bytes(400, 30) == pytest.approx((tmp_path / "saved.npz").stat().st_size, rel=0.1)
