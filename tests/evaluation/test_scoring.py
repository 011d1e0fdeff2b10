"""Scores of folders: the numbers, the reference they are scored against, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dmp_cli.errors import DMPError, MetricError
from dmp_cli.evaluation.distances import fit_gaussian, frechet_distance, kernel_distances
from dmp_cli.evaluation.results import render_scores, score_table
from dmp_cli.evaluation.scoring import evaluate

from .conftest import config_for, pixel_features, write_folder

torch.set_num_threads(1)


def test_rows_in_order_with_the_distances_of_their_features(folders: dict[str, Path]) -> None:
    config = config_for([folders["near"], folders["far"]], folders["reference"], metrics=("fid", "kid"), seed=7)
    found = evaluate(config)
    reference = pixel_features(60, seed=0)
    both = pixel_features(40, seed=1), pixel_features(40, seed=2, low=128)
    for row, features in zip(found.rows, both, strict=True):
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
    found = evaluate(config_for([folders["near"]], folders["near"]))
    assert abs(found.rows[0].scores["fid"].value) < 1e-5


def test_all_metrics_in_one_table_say_which_way_is_better(folders: dict[str, Path]) -> None:
    config = config_for([folders["near"], folders["far"]], folders["reference"], metrics=("fid", "prc"), bootstrap=3)
    found = evaluate(config)
    assert score_table(found)[0] == [
        "samples",
        "images",
        "FD (pixels)",
        "Δ FD (pixels)",
        "Precision",
        "Δ Precision",
        "Recall",
        "Δ Recall",
    ]
    text = render_scores(found)
    assert "Higher is better for Precision, Recall, lower for FD (pixels)." in text
    assert set(found.versions) == {"dmp", "torch", "clean-fid", "torch-fidelity"}
    assert found.rows[0].scores["precision"].spread is not None
    assert found.rows[0].scores["recall"].spread is None
    assert any("recall has no spread by resampling" in warning for warning in found.warnings)
    assert evaluate(config.model_copy(update={"repeats": 2})).rows[0].scores["recall"].spread is not None


def test_statistics_saved_once_serve_as_the_reference(folders: dict[str, Path], tmp_path: Path) -> None:
    samples, metrics = [folders["near"]], ("fid", "kid")
    first = evaluate(config_for(samples, folders["reference"], metrics=metrics, save_stats=tmp_path / "r.npz"))
    second = evaluate(config_for(samples, tmp_path / "r.npz", metrics=metrics))
    assert second.rows == first.rows
    assert second.reference_provenance == first.reference_provenance
    with pytest.raises(MetricError, match="nothing to save"):
        evaluate(config_for(samples, tmp_path / "r.npz", save_stats=tmp_path / "again.npz"))


def test_statistics_of_another_network_or_width_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    evaluate(config_for([folders["near"]], folders["reference"], save_stats=tmp_path / "pixels.npz"))
    with pytest.raises(MetricError, match=r"statistics in features pixels .* asked for in digits"):
        evaluate(config_for([folders["near"]], tmp_path / "pixels.npz", features="digits"))
    np.savez(tmp_path / "narrow.npz", mu=np.zeros(5), sigma=np.eye(5))
    with pytest.raises(MetricError, match="statistics of 5 features, but features digits has 64"):
        evaluate(config_for([folders["near"]], tmp_path / "narrow.npz", features="digits"))
    with pytest.raises(MetricError, match=r"statistics of 5 features, but .*near has 12"):
        evaluate(config_for([folders["near"]], tmp_path / "narrow.npz"))


def test_statistics_of_other_tools_serve_for_fid_with_a_warning(folders: dict[str, Path], tmp_path: Path) -> None:
    gaussian = fit_gaussian(pixel_features(60, seed=0))
    np.savez(tmp_path / "other.npz", mu=gaussian.mean, sigma=gaussian.covariance)
    found = evaluate(config_for([folders["near"]], tmp_path / "other.npz"))
    expected = evaluate(config_for([folders["near"]], folders["reference"]))
    assert found.rows[0].scores["fid"].value == pytest.approx(expected.rows[0].scores["fid"].value, rel=1e-12)
    assert len(found.warnings) == 1
    assert "provenance unknown" in found.warnings[0]
    assert "an unknown number of images" in render_scores(found)
    with pytest.raises(MetricError, match="kid needs them"):
        evaluate(config_for([folders["near"]], tmp_path / "other.npz", metrics=("kid",)))


def test_bad_folders_are_found_before_anything_is_measured(folders: dict[str, Path], tmp_path: Path) -> None:
    lines: list[str] = []
    for bad in (tmp_path / "missing", folders["single"]):
        with pytest.raises(DMPError, match=bad.name):
            evaluate(config_for([folders["near"], bad], folders["reference"]), log=lines.append)
    assert lines == []
    with pytest.raises(MetricError, match="single"):
        evaluate(config_for([folders["near"]], folders["single"]))


def test_samples_json_is_copied_into_the_row(folders: dict[str, Path], tmp_path: Path) -> None:
    folder, made = write_folder(tmp_path / "a", 20, seed=1), {"seed": 3, "patch": {"digest": "ab"}}
    (folder / "samples.json").write_text(json.dumps(made))
    rows = evaluate(config_for([folder, folders["near"]], folders["reference"])).rows
    assert rows[0].made == made
    assert rows[1].made is None
    (folder / "samples.json").write_text("{")
    with pytest.raises(MetricError, match=r"samples\.json"):
        evaluate(config_for([folder], folders["reference"]))


def test_the_record_is_plain_json_with_its_sources(folders: dict[str, Path]) -> None:
    found = evaluate(config_for([folders["near"]], folders["reference"], bootstrap=2)).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found["versions"]) == {"dmp", "torch", "clean-fid"}
    assert (found["features"], found["features_digest"], found["features_width"]) == ("pixels", "pixels", 12)
    assert found["reference"] == str(folders["reference"])
    assert len(found["reference_provenance"]["fingerprint"]) == 64


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
    a, b = write_folder(tmp_path / "a", 40, seed=1, size=20), write_folder(tmp_path / "b", 50, seed=2, low=90, size=24)
    options = {"num_workers": 0, "device": torch.device("cpu"), "verbose": False}
    try:
        expected = fid.compute_fid(str(a), str(b), custom_feat_extractor=torch.jit.load(str(network)), **options)
    except TypeError as error:  # SciPy 1.18 took away an argument that clean-fid gives
        pytest.skip(f"clean-fid cannot compute here: {error}")
    found = evaluate(config_for([a], b, features=str(network)))
    assert expected > 0.01
    assert found.rows[0].scores["fid"].value == pytest.approx(expected, rel=1e-6)
    assert found.warnings == (f"{a}: no image has the same size in pixels as any reference image",)
