"""The statistics file: what comes back, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from dmp_cli.errors import MetricError
from dmp_cli.evaluation.distances import fit_gaussian
from dmp_cli.evaluation.statistics import Provenance, Statistics, load_statistics, save_statistics


def _statistics(n: int = 12, d: int = 5) -> Statistics:
    features = np.random.default_rng(0).random((n, d), np.float32)
    known = Provenance(
        features="digits", digest="ab12", count=n, source="ünder", fingerprint="cd34", image_sizes=((8, 8), (9, 8))
    )
    return Statistics(fit_gaussian(features), features, known)


def _same(a: Statistics, b: Statistics) -> bool:
    assert a.features is not None
    assert b.features is not None
    arrays = [(a.gaussian.mean, b.gaussian.mean), (a.gaussian.covariance, b.gaussian.covariance)]
    return a.provenance == b.provenance and all(np.array_equal(x, y) for x, y in [*arrays, (a.features, b.features)])


def test_round_trip(tmp_path: Path) -> None:
    statistics = _statistics()
    save_statistics(tmp_path / "new" / "stats.npz", statistics)
    loaded = load_statistics(tmp_path / "new" / "stats.npz")
    assert _same(loaded, statistics)
    assert (loaded.count, loaded.width) == (12, 5)
    assert loaded.features is not None
    assert loaded.features.dtype == np.float32
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["stats.npz"]


def test_other_tools_find_mu_and_sigma(tmp_path: Path) -> None:
    statistics = _statistics()
    save_statistics(tmp_path / "stats.npz", statistics)
    with np.load(tmp_path / "stats.npz") as stored:
        np.testing.assert_array_equal(stored["mu"], statistics.gaussian.mean)
        np.testing.assert_allclose(stored["sigma"], np.cov(statistics.features, rowvar=False), rtol=1e-6)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    statistics = _statistics(n=4, d=3)
    save_statistics(tmp_path / "stats.npz", statistics)
    whole, refused = (tmp_path / "stats.npz").read_bytes(), 0
    for position in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << (position % 8)
        (tmp_path / "flipped.npz").write_bytes(flipped)
        try:
            assert _same(load_statistics(tmp_path / "flipped.npz"), statistics), position
        except MetricError:
            refused += 1
    assert refused > len(whole) // 3 // 2


def test_changed_content_with_a_sound_zip_around_it_is_refused(tmp_path: Path) -> None:
    save_statistics(tmp_path / "stats.npz", _statistics())
    with np.load(tmp_path / "stats.npz") as stored:
        content = dict(stored)
    for key in ("mu", "sigma", "features"):
        changed = {**content, key: content[key] * 2}
        np.savez(tmp_path / "changed.npz", **changed)
        with pytest.raises(MetricError, match="damaged or changed"):
            load_statistics(tmp_path / "changed.npz")
    np.savez(tmp_path / "renamed.npz", **{**content, "provenance": np.array('{"features": "inception"}')})
    with pytest.raises(MetricError, match="damaged or changed"):
        load_statistics(tmp_path / "renamed.npz")
    for key in ("provenance", "digest"):  # without either it must not pass for another tool's
        np.savez(tmp_path / "stripped.npz", **{name: array for name, array in content.items() if name != key})
        with pytest.raises(MetricError, match="damaged or changed"):
            load_statistics(tmp_path / "stripped.npz")


@pytest.mark.parametrize("size", [0, 10, 500, -1])
def test_a_cut_file_is_refused(tmp_path: Path, size: int) -> None:
    save_statistics(tmp_path / "stats.npz", _statistics())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "stats.npz").read_bytes()[:size])
    with pytest.raises(MetricError, match="not a readable"):
        load_statistics(tmp_path / "cut.npz")


def test_a_file_of_another_tool_is_read_without_provenance(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", mu=np.zeros(2, np.float32), sigma=np.eye(2), count=np.array(7))
    loaded = load_statistics(tmp_path / "other.npz")
    assert loaded.provenance == Provenance()
    assert loaded.features is None
    assert (loaded.count, loaded.width) == (None, 2)
    assert loaded.gaussian.mean.dtype == np.float64


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"arr_0": np.zeros((2, 4, 4, 3))}, "no mean and covariance"),
        ({"mu": np.zeros(2)}, "no mean and covariance"),
        ({"mu": np.zeros(2), "sigma": np.eye(3)}, r"\(2,\) and sigma \(3, 3\)"),
        ({"mu": np.array([0, np.nan]), "sigma": np.eye(2)}, "not a finite"),
        ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.inf)}, "not a finite"),
        ({"mu": np.array(["a", "b"]), "sigma": np.eye(2)}, "not a finite"),
        ({"mu": np.array([{}, {}]), "sigma": np.eye(2)}, "not a readable"),  # pickled
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: dict[str, np.ndarray], reason: str) -> None:
    np.savez(tmp_path / "other.npz", **content)
    with pytest.raises(MetricError, match=reason):
        load_statistics(tmp_path / "other.npz")


def test_a_file_that_is_not_npz_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="no such"):
        load_statistics(tmp_path / "missing.npz")
    with pytest.raises(MetricError, match="no such"):
        load_statistics(tmp_path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps({"mu": 1}))
    for name in ("array.npz", "pickle.npz"):
        with pytest.raises(MetricError, match="not a readable"):
            load_statistics(tmp_path / name)
