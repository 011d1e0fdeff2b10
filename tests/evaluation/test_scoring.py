"""Scores of folders: the numbers, their spreads and differences, the warnings, the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dmp_cli.config import EvalConfig
from dmp_cli.errors import DMPError, MetricError
from dmp_cli.evaluation.distances import fit_gaussian, frechet_distance, kernel_distances, resampling_counts
from dmp_cli.evaluation.results import plus_minus, render_scores, score_table
from dmp_cli.evaluation.scoring import evaluate

torch.set_num_threads(1)


def _folder(path: Path, n: int, *, seed: int, low: int = 0, size: int = 2) -> Path:
    path.mkdir(parents=True)
    for index, picture in enumerate(_pictures(n, seed=seed, low=low, size=size)):
        Image.fromarray(picture).save(path / f"{index:06d}.png")
    return path


def _pictures(n: int, *, seed: int, low: int = 0, size: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, 256, (n, size, size, 3), np.uint8)


def _features(n: int, *, seed: int, low: int = 0) -> np.ndarray:
    return _pictures(n, seed=seed, low=low).reshape(n, 12).astype(np.float32) / 255


def _config(samples: list[Path], reference: Path, **options: Any) -> EvalConfig:
    options = {"features": "pixels", "bootstrap": 0, "kid_subsets": 5, "kid_subset_size": 20, **options}
    return EvalConfig(samples=tuple(samples), reference=reference, **options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    return {
        "reference": _folder(root / "reference", 60, seed=0),
        "near": _folder(root / "near", 40, seed=1),
        "copy": _folder(root / "copy", 40, seed=1),
        "far": _folder(root / "far", 40, seed=2, low=128),
        "few": _folder(root / "few", 15, seed=3),
        "single": _folder(root / "single", 1, seed=4),
    }


def test_rows_in_order_with_the_distances_of_their_features(folders: dict[str, Path]) -> None:
    config = _config([folders["near"], folders["far"]], folders["reference"], metrics=("fid", "kid"), seed=7)
    found = evaluate(config)
    reference = _features(60, seed=0)
    for row, features in zip(found.rows, (_features(40, seed=1), _features(40, seed=2, low=128)), strict=True):
        fid = frechet_distance(fit_gaussian(features), reference=fit_gaussian(reference))
        ones = np.ones((1, 40), np.int64)
        kid = kernel_distances(features, reference=reference, counts=ones, subsets=5, subset_size=20, seed=7)
        assert row.count == 40
        assert row.scores["fid"].value == pytest.approx(fid, rel=1e-9)
        assert row.scores["kid"].value == pytest.approx(kid.mean(), rel=1e-9)
        assert row.scores["kid"].subset_std == pytest.approx(kid.std(ddof=1), rel=1e-9)
        assert row.scores["kid"].subset_size == 20
        assert row.scores["fid"].spread is None
    near, far = (row.scores["fid"] for row in found.rows)
    assert near.difference is None
    assert far.difference == pytest.approx(far.value - near.value, rel=1e-12)
    assert far.difference_spread is None
    assert [row.samples for row in found.rows] == [str(folders["near"]), str(folders["far"])]
    assert found.warnings == ()


def test_a_against_a_is_zero(folders: dict[str, Path]) -> None:
    found = evaluate(_config([folders["near"]], folders["near"]))
    assert abs(found.rows[0].scores["fid"].value) < 1e-5


def test_a_folder_that_equals_the_base_differs_by_exactly_nothing(folders: dict[str, Path]) -> None:
    config = _config([folders["near"], folders["copy"]], folders["reference"], metrics=("fid", "kid"), bootstrap=5)
    for score in evaluate(config).rows[1].scores.values():
        assert (score.difference, score.difference_spread) == (0.0, 0.0)
        assert score.spread is not None
        assert score.spread > 0


def test_spreads_are_standard_deviations_over_shared_resamples(folders: dict[str, Path]) -> None:
    config = _config([folders["near"], folders["far"]], folders["reference"], bootstrap=6, seed=3)
    reference, counts = fit_gaussian(_features(60, seed=0)), resampling_counts(40, resamples=6, seed=3)
    by_hand = np.array(
        [
            [frechet_distance(fit_gaussian(np.repeat(f, c, axis=0)), reference=reference) for c in counts]
            for f in (_features(40, seed=1), _features(40, seed=2, low=128))
        ]
    )
    near, far = (row.scores["fid"] for row in evaluate(config).rows)
    assert near.spread == pytest.approx(by_hand[0].std(ddof=1), rel=1e-8)
    assert far.spread == pytest.approx(by_hand[1].std(ddof=1), rel=1e-8)
    assert far.difference_spread == pytest.approx((by_hand[1] - by_hand[0]).std(ddof=1), rel=1e-8)


def test_repeats_score_parts_of_consecutive_images(folders: dict[str, Path]) -> None:
    config = _config([folders["near"], folders["far"]], folders["reference"], repeats=3)
    reference = fit_gaussian(_features(60, seed=0))
    by_hand = np.array(
        [
            [frechet_distance(fit_gaussian(f[k : k + 13]), reference=reference) for k in (0, 13, 26)]
            for f in (_features(40, seed=1), _features(40, seed=2, low=128))
        ]
    )
    found = evaluate(config)
    near, far = (row.scores["fid"] for row in found.rows)
    assert near.value == pytest.approx(by_hand[0].mean(), rel=1e-9)
    assert near.spread == pytest.approx(by_hand[0].std(ddof=1) / 3**0.5, rel=1e-8)
    gap = by_hand[1] - by_hand[0]
    assert far.difference == pytest.approx(gap.mean(), rel=1e-9)
    reach = 4.302653 * gap.std(ddof=1) / 3**0.5  # Student's t, two degrees of freedom, 97.5 %
    assert far.interval == pytest.approx((gap.mean() - reach, gap.mean() + reach), rel=1e-5)
    assert any("the last 1 images are in none of 3 parts" in warning for warning in found.warnings)
    assert [row[1] for row in score_table(found)[1]] == ["3\u00a0×\u00a013", "3\u00a0×\u00a013"]
    assert "mean over 3 parts" in render_scores(found)


def test_more_repeats_than_pairs_of_images_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(MetricError, match="there are only 40 images"):
        evaluate(_config([folders["near"]], folders["reference"], repeats=21))


def test_all_metrics_in_one_table_say_which_way_is_better(folders: dict[str, Path]) -> None:
    config = _config([folders["near"], folders["far"]], folders["reference"], metrics=("fid", "prc"), bootstrap=3)
    found = evaluate(config)
    assert score_table(found)[0] == [
        "samples",
        "images",
        "FID",
        "Δ FID",
        "Precision",
        "Δ Precision",
        "Recall",
        "Δ Recall",
    ]
    text = render_scores(found)
    assert "Higher is better for Precision, Recall, lower for FID." in text
    assert set(found.versions) == {"dmp", "torch", "clean-fid", "torch-fidelity"}
    assert found.rows[0].scores["precision"].spread is not None
    assert found.rows[0].scores["recall"].spread is None
    assert any("recall has no spread by resampling" in warning for warning in found.warnings)
    assert evaluate(config.model_copy(update={"repeats": 2})).rows[0].scores["recall"].spread is not None


def test_the_same_call_gives_the_same_bytes_and_another_seed_does_not(folders: dict[str, Path]) -> None:
    def text(seed: int) -> str:
        config = _config([folders["near"]], folders["reference"], metrics=("fid", "kid"), bootstrap=3, seed=seed)
        return json.dumps(evaluate(config).to_json()["rows"])

    assert text(0) == text(0)
    assert text(0) != text(1)


def test_statistics_saved_once_serve_as_the_reference(folders: dict[str, Path], tmp_path: Path) -> None:
    samples, metrics = [folders["near"]], ("fid", "kid")
    first = evaluate(_config(samples, folders["reference"], metrics=metrics, save_stats=tmp_path / "r.npz"))
    second = evaluate(_config(samples, tmp_path / "r.npz", metrics=metrics))
    assert second.rows == first.rows
    assert second.reference_provenance == first.reference_provenance
    with pytest.raises(MetricError, match="nothing to save"):
        evaluate(_config(samples, tmp_path / "r.npz", save_stats=tmp_path / "again.npz"))


def test_statistics_of_another_network_or_width_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    evaluate(_config([folders["near"]], folders["reference"], save_stats=tmp_path / "pixels.npz"))
    with pytest.raises(MetricError, match=r"statistics in features pixels .* asked for in digits"):
        evaluate(_config([folders["near"]], tmp_path / "pixels.npz", features="digits"))
    np.savez(tmp_path / "narrow.npz", mu=np.zeros(5), sigma=np.eye(5))
    with pytest.raises(MetricError, match="statistics of 5 features, and features digits has 64"):
        evaluate(_config([folders["near"]], tmp_path / "narrow.npz", features="digits"))
    with pytest.raises(MetricError, match=r"statistics of 5 features, and .*near has 12"):
        evaluate(_config([folders["near"]], tmp_path / "narrow.npz"))


def test_statistics_of_other_tools_serve_for_fid_with_a_warning(folders: dict[str, Path], tmp_path: Path) -> None:
    gaussian = fit_gaussian(_features(60, seed=0))
    np.savez(tmp_path / "other.npz", mu=gaussian.mean, sigma=gaussian.covariance)
    found = evaluate(_config([folders["near"]], tmp_path / "other.npz"))
    expected = evaluate(_config([folders["near"]], folders["reference"]))
    assert found.rows[0].scores["fid"].value == pytest.approx(expected.rows[0].scores["fid"].value, rel=1e-12)
    assert len(found.warnings) == 1
    assert "provenance unknown" in found.warnings[0]
    assert "an unknown number of images" in render_scores(found)
    with pytest.raises(MetricError, match="kid needs them"):
        evaluate(_config([folders["near"]], tmp_path / "other.npz", metrics=("kid",)))


def test_warnings_about_counts(folders: dict[str, Path], tmp_path: Path) -> None:
    tiny = _folder(tmp_path / "tiny", 12, seed=5)
    found = evaluate(
        _config([folders["near"], tiny], folders["few"], metrics=("fid", "kid"), kid_subset_size=20, bootstrap=1)
    )
    text = "\n".join(found.warnings)
    assert f"{tiny}: 12 images for 12 features: the covariance is singular" in text
    assert f"{folders['near']}: 40" not in text
    assert f"{folders['near']}: KID over subsets of 15 images, not 20" in text
    assert f"{tiny}: KID over subsets of 12 images, not 20" in text
    assert found.rows[1].scores["kid"].subset_size == 12
    assert "different numbers of images" in text
    assert "one resample has no spread" in text
    assert len(found.warnings) == 5


def test_a_reference_smaller_than_the_features_is_warned_about(folders: dict[str, Path], tmp_path: Path) -> None:
    found = evaluate(_config([folders["near"]], _folder(tmp_path / "r", 9, seed=5)))
    assert found.warnings == (f"{tmp_path / 'r'}: 9 images for 12 features: the covariance is singular and FID biased",)


def test_bad_folders_are_found_before_anything_is_measured(folders: dict[str, Path], tmp_path: Path) -> None:
    lines: list[str] = []
    for bad in (tmp_path / "missing", folders["single"]):
        with pytest.raises(DMPError, match=bad.name):
            evaluate(_config([folders["near"], bad], folders["reference"]), log=lines.append)
    assert lines == []
    with pytest.raises(MetricError, match="single"):
        evaluate(_config([folders["near"]], folders["single"]))


def test_samples_json_is_copied_into_the_row(folders: dict[str, Path], tmp_path: Path) -> None:
    folder, made = _folder(tmp_path / "a", 20, seed=1), {"seed": 3, "patch": {"digest": "ab"}}
    (folder / "samples.json").write_text(json.dumps(made))
    rows = evaluate(_config([folder, folders["near"]], folders["reference"])).rows
    assert rows[0].made == made
    assert rows[1].made is None
    (folder / "samples.json").write_text("{")
    with pytest.raises(MetricError, match=r"samples\.json"):
        evaluate(_config([folder], folders["reference"]))


def test_the_record_is_plain_json_with_its_sources(folders: dict[str, Path]) -> None:
    found = evaluate(_config([folders["near"]], folders["reference"], bootstrap=2)).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found["versions"]) == {"dmp", "torch", "clean-fid"}
    assert (found["features"], found["features_digest"], found["features_width"]) == ("pixels", "pixels", 12)
    assert found["reference"] == str(folders["reference"])
    assert len(found["reference_provenance"]["fingerprint"]) == 64


def test_the_table(folders: dict[str, Path], tmp_path: Path) -> None:
    bar = _folder(tmp_path / "a|b", 40, seed=8)
    found = evaluate(_config([folders["near"], bar], folders["reference"], metrics=("fid", "kid"), bootstrap=4))
    lines = render_scores(found).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| samples | images | FID | Δ FID | KID | Δ KID |"
    assert table[1] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    base, second = (row.replace("\\|", "¦").split(" | ") for row in table[2:])
    columns, rows = score_table(found)
    assert [len(row) for row in rows] == [len(columns)] * 2
    assert rows[1][0] == str(bar)  # the Markdown escape is Markdown's own
    fid = found.rows[0].scores["fid"]
    assert base[:4] == [f"| {folders['near']}", "40", plus_minus(fid.value, fid.spread), "base"]
    assert second[0] == f"| {tmp_path}/a¦b"
    fid = found.rows[1].scores["fid"]
    assert second[3] == plus_minus(fid.difference, fid.difference_spread, signed=True)
    assert second[4].endswith("(m = 20)")
    assert any("4 resamples" in line for line in lines)
    assert any(str(folders["reference"]) in line and "60 images" in line for line in lines)


@pytest.mark.parametrize(
    ("value", "spread", "signed", "text"),
    [
        (5.8712, 0.0312, False, "5.871 ± 0.031"),
        (5.8712, None, False, "5.871"),
        (0.0, 0.0, True, "+0 ± 0"),
        (-1.234, 0.5, True, "-1.23 ± 0.50"),
        (123.4, 45.6, False, "123 ± 46"),
        (-1e-9, 0.0018, True, "+0.0000 ± 0.0018"),
        (-0.0000027, 0.0000072, False, "-2.70e-06 ± 7.2e-06"),
    ],
)
def test_numbers_are_written_to_their_spread(value: float, spread: float | None, signed: bool, text: str) -> None:
    assert plus_minus(value, spread, signed=signed) == text


class Corners(nn.Module):
    """A stand-in network with 16 features, a random projection of a coarse view of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(48, 16)
        nn.init.normal_(self.projection.weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.projection(nn.functional.adaptive_avg_pool2d(x / 255, 4).flatten(1)))


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_fid_equals_clean_fid_s_own(tmp_path: Path) -> None:
    try:
        from cleanfid import fid
    except Exception as error:  # a torchvision that does not fit torch breaks this import with a RuntimeError
        pytest.skip(f"clean-fid cannot be imported here: {error}")
    torch.manual_seed(0)
    network = tmp_path / "network.pt"
    torch.jit.script(Corners().eval()).save(str(network))
    a, b = _folder(tmp_path / "a", 40, seed=1, size=20), _folder(tmp_path / "b", 50, seed=2, low=90, size=24)
    options = {"num_workers": 0, "device": torch.device("cpu"), "verbose": False}
    try:
        expected = fid.compute_fid(str(a), str(b), custom_feat_extractor=torch.jit.load(str(network)), **options)
    except TypeError as error:  # SciPy 1.18 took away an argument that clean-fid gives
        pytest.skip(f"clean-fid cannot compute here: {error}")
    found = evaluate(_config([a], b, features=str(network)))
    assert expected > 0.01
    assert found.rows[0].scores["fid"].value == pytest.approx(expected, rel=1e-6)
    assert found.warnings == (f"{a}: no image has the size in pixels of any reference image",)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_the_distance_equals_clean_fid_s_own() -> None:
    try:
        from cleanfid import fid
    except Exception as error:  # as above
        pytest.skip(f"clean-fid cannot be imported here: {error}")
    a, b = (fit_gaussian(np.random.default_rng(seed).gamma(0.5, size=(300, 40))) for seed in (0, 1))
    try:
        expected = fid.frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    except TypeError as error:  # as above
        pytest.skip(f"clean-fid cannot compute here: {error}")
    assert frechet_distance(a, reference=b) == pytest.approx(expected, rel=1e-6)
    x, y = (np.random.default_rng(seed).random((30, 6)) for seed in (0, 1))
    ones = np.ones((1, 30), np.int64)
    kid = kernel_distances(x, reference=y, counts=ones, subsets=1, subset_size=30, seed=0)[0, 0]
    assert kid == pytest.approx(fid.kernel_distance(y, x, num_subsets=1, max_subset_size=30), rel=1e-6)
