"""What is scored: the .npz of ``dmp sample --npz``, folders with kinds that are not read, and samples kept as JPEG."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_cli.errors import DataError, MetricError
from dmp_cli.evaluation.array_images import ArrayImages
from dmp_cli.evaluation.first_images import read_first_images
from dmp_cli.evaluation.scoring import evaluate
from dmp_cli.evaluation.statistics import Provenance
from dmp_cli.sampling.exports import write_npz

from .conftest import config_for, draw_pictures, write_folder


def test_an_npz_scores_as_the_folder_it_was_made_of(folders: dict[str, Path], tmp_path: Path) -> None:
    pictures = draw_pictures(40, seed=1)
    path = tmp_path / "samples.npz"
    write_npz(path, lambda index: pictures[index], num_images=40, labels=np.arange(40))
    np.savez_compressed(tmp_path / "packed.npz", pictures)
    found = evaluate(config_for([folders["near"], path, tmp_path / "packed.npz"], folders["reference"]))
    values = [row.scores["fid"].value for row in found.rows]
    assert values[0] == values[1] == values[2]
    assert [row.count for row in found.rows] == [40, 40, 40]
    assert np.array_equal(read_first_images(path, count=3), pictures[:3])
    back = evaluate(config_for([folders["near"]], path))  # ADM's files may be references too
    assert back.rows[0].scores["fid"].value == pytest.approx(0, abs=1e-9)


def test_it_knows_how_it_was_made(folders: dict[str, Path], tmp_path: Path) -> None:
    pictures = draw_pictures(20, seed=1)
    write_npz(tmp_path / "samples.npz", lambda index: pictures[index], num_images=20, labels=None)
    made = {"num_images": 20, "made": {"image_size": 3}}
    (tmp_path / "samples.json").write_text(json.dumps(made))
    with pytest.raises(MetricError, match=r"holds images of 2x2 pixels, but .*samples.npz of 3x3"):
        evaluate(config_for([tmp_path / "samples.npz"], folders["reference"]))


def test_grey_arrays_and_what_is_no_array_of_images(tmp_path: Path) -> None:
    grey = draw_pictures(3, seed=0)[..., :1]
    for number, array in enumerate((grey, grey[..., 0])):
        np.savez(tmp_path / f"{number}.npz", array)
        found = read_first_images(tmp_path / f"{number}.npz", count=3)
        assert np.array_equal(found, grey.repeat(3, axis=-1))
    wrong = {
        "floats": ({"arr_0": np.zeros((3, 2, 2, 3))}, r"holds float64 \(3, 2, 2, 3\), not uint8 images"),
        "channels": ({"arr_0": np.zeros((3, 3, 2, 2), np.uint8)}, r"holds uint8 \(3, 3, 2, 2\), not uint8 images"),
        "features": ({"feats": np.zeros((3, 8))}, "holds no images"),
        "one": ({"arr_0": grey[:1]}, "a score needs at least two images, and there are 1"),
    }
    for name, (content, message) in wrong.items():
        np.savez(tmp_path / f"{name}.npz", **content)
        with pytest.raises(MetricError, match=message):
            read_first_images(tmp_path / f"{name}.npz", count=3)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "0.npz").read_bytes()[:-30])
    for name in ("cut", "none"):
        with pytest.raises(DataError, match=f"{name}.npz"):
            ArrayImages(tmp_path / f"{name}.npz")
    objects = np.array([{}], dtype=object)
    np.savez(tmp_path / "objects.npz", objects)
    with pytest.raises(DataError, match="it holds object, not numbers"):
        ArrayImages(tmp_path / "objects.npz")


@pytest.mark.parametrize("side", ["samples", "reference"])
def test_kinds_that_are_not_read_are_as_bad_as_unreadable_images(tmp_path: Path, side: str) -> None:
    paths = {name: write_folder(tmp_path / name, 20, seed=k) for k, name in enumerate(("samples", "reference"))}
    for name in ("x.jxl", "y.jxl", "z.psd"):
        (paths[side] / name).touch()
    with pytest.raises(MetricError) as caught:
        evaluate(config_for([paths["samples"]], paths["reference"]))
    told = f"{paths[side]}: 3 files passed over: 2 .jxl, 1 .psd; a score over fewer images does not compare with others"
    assert caught.value.message == told
    assert caught.value.hint == "Convert them to PNG or JPEG, or remove them."


def write_jpegs(path: Path, n: int, *, seed: int) -> Path:
    path.mkdir()
    for index, picture in enumerate(draw_pictures(n, seed=seed)):
        Image.fromarray(picture).save(path / f"{index:06d}.jpg")
    return path


def test_samples_that_went_through_jpeg(folders: dict[str, Path], tmp_path: Path) -> None:
    jpegs, photos = write_jpegs(tmp_path / "jpegs", 20, seed=1), write_jpegs(tmp_path / "photos", 60, seed=2)
    told = (
        f"{jpegs}: 20 images are JPEG files and none of the reference is, so that the losses of JPEG count in the score"
    )
    assert told in evaluate(config_for([folders["near"], jpegs], folders["reference"])).warnings
    for samples, reference in ((jpegs, photos), (folders["near"], photos), (folders["near"], folders["reference"])):
        warnings = evaluate(config_for([samples], reference)).warnings
        assert not any("JPEG" in warning for warning in warnings)


def test_statistics_say_it_too_and_older_ones_say_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    jpegs, kept = write_jpegs(tmp_path / "jpegs", 20, seed=1), tmp_path / "stats.npz"
    evaluate(config_for([folders["near"]], folders["reference"], save_stats=kept))
    assert any("JPEG" in warning for warning in evaluate(config_for([jpegs], kept)).warnings)
    assert "jpegs" not in json.loads(Provenance(count=3).model_dump_json())
