"""Warnings of an evaluation: too few images, unequal numbers, missing spreads."""

from __future__ import annotations

from pathlib import Path

import torch

from dmp_cli.evaluation.few_images import Counted, few_of, warn_of_few
from dmp_cli.evaluation.scoring import evaluate

from .conftest import config_for, write_folder

torch.set_num_threads(1)


def test_warnings_about_counts(folders: dict[str, Path], tmp_path: Path) -> None:
    tiny = write_folder(tmp_path / "tiny", 12, seed=5)
    found = evaluate(
        config_for([folders["near"], tiny], folders["few"], metrics=("fid", "kid"), kid_subset_size=20, bootstrap=1)
    )
    text = "\n".join(found.warnings)
    assert f"{tiny}: 12 images for 12 features: the covariance is singular" in text
    assert f"{folders['near']}: 40" not in text
    assert f"{folders['near']}: KD (pixels) uses subsets of 15 images, not 20" in text
    assert f"{tiny}: KD (pixels) uses subsets of 12 images, not 20" in text
    assert found.rows[1].scores["kid"].subset_size == 12
    assert "different numbers of images" in text
    assert "one resample gives no spread" in text
    assert len(found.warnings) == 5


def test_a_reference_smaller_than_the_features_is_warned_about(folders: dict[str, Path], tmp_path: Path) -> None:
    few = write_folder(tmp_path / "few", 9, seed=5)
    found = evaluate(config_for([folders["near"]], few))
    assert found.warnings == (f"{few}: 9 images for 12 features: the covariance is singular, so FD (pixels) is biased",)


def test_how_much_of_a_fid_is_due_to_few_images(folders: dict[str, Path], tmp_path: Path) -> None:
    tiny = write_folder(tmp_path / "tiny", 8, seed=5)
    found = evaluate(config_for([folders["near"], folders["far"], tiny], folders["reference"], bootstrap=None))
    near, far, few = (row.scores["fid"] for row in found.rows)
    assert near.bias is not None
    assert few.bias is not None
    assert few.bias > near.bias > 0
    text = "\n".join(found.warnings)
    told = f"{folders['near']}: about {near.bias:.2g} of {near.value:.4g} with 40 images; "
    told += f"{tiny}: at least {few.bias:.2g} of {few.value:.4g} with 8 images is due to having so few images"
    assert told in text
    assert str(folders["far"]) not in text  # its distance is large, and this part of it is small
    assert far.bias is not None
    resampled = evaluate(config_for([folders["near"]], folders["reference"], bootstrap=2))
    assert "bias" not in resampled.to_json()["rows"][0]["scores"]["fid"]


def test_what_is_said_of_several_folders_is_said_once(tmp_path: Path, folders: dict[str, Path]) -> None:
    tiny = [write_folder(tmp_path / name, 12, seed=5) for name in ("a", "b")]
    found = evaluate(config_for([*tiny, folders["near"]], folders["reference"]))
    singular = [warning for warning in found.warnings if "singular" in warning]
    told = f"{tiny[0]}, {tiny[1]}: 12 images for 12 features: the covariance is singular, so FD (pixels) is biased"
    assert singular == [told]


def test_of_a_report_the_rows_are_those_of_the_page(tmp_path: Path, folders: dict[str, Path]) -> None:
    tiny = write_folder(tmp_path / "tiny", 8, seed=5)
    found = evaluate(config_for([folders["near"], folders["far"], tiny], folders["reference"], bootstrap=None))
    few, notes = few_of(found.to_json(), [row.samples for row in found.rows])
    assert few == [0, 2]
    assert notes == [f"{told}." for told in found.warnings if "so few images" in told or "singular" in told]
    assert few_of({**found.to_json(), "rows": [{"scores": {"kid": {}}}]}, ["a"]) == ([], [])


def test_of_many_folders_some_are_named() -> None:
    folders = [Counted(f"arm{i}", 900 + i, 900, 10.0, 1.5 + i / 10) for i in range(8)]
    folders += [Counted("base", 9000, 9000, 10.0, 0.1)]
    assert warn_of_few(folders, width=64, title="FID") == [
        "arm0, arm1, arm2 and 5 more: 15 to 22 % of FID with 900 to 907 images is due to having so few images: "
        "FID falls as the number grows"
    ]
    few = [Counted(f"arm{i}", 60, 60, 29.0, None) for i in range(1003)]
    assert warn_of_few(few, width=64, title="FID") == [
        "all 1,003: 60 images for 64 features: the covariance is singular, so FID is biased"
    ]


def test_a_distance_that_is_all_bias_is_called_so() -> None:
    folders = [Counted("a", 60, 60, 29.0, 46.0), Counted("b", 900, 900, 10.0, 1.5), Counted("c", 900, 900, 10.0, 0.5)]
    assert warn_of_few(folders, width=64, title="FID") == [
        "a: 60 images for 64 features: the covariance is singular, so FID is biased",
        "a: as good as all of 29 with 60 images; b: about 1.5 of 10 with 900 images is due to having so few images: "
        "FID falls as the number grows",
    ]
