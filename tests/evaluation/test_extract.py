"""Folders and zips to statistics: order, what counts as a sample, what is refused."""

from __future__ import annotations

import contextlib
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dmp_cli.errors import DataError, MetricError
from dmp_cli.evaluation import embedding
from dmp_cli.evaluation.extract import measure
from dmp_cli.evaluation.features import Extractor, load_extractor
from dmp_cli.runtime import Advance, watched

torch.set_num_threads(1)
PIXELS = load_extractor("pixels")


def _pictures(n: int, *, seed: int = 0, size: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)


def _write(folder: Path, pictures: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index:06d}.png")
    return folder


def _zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):  # stored in another order than sorted
            archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_features_come_in_sorted_order_whatever_the_batch_size(tmp_path: Path, batch_size: int) -> None:
    pictures = _pictures(7)
    found = measure(_write(tmp_path / "a", pictures), PIXELS, batch_size=batch_size)
    assert found.features is not None
    np.testing.assert_allclose(found.features, pictures.reshape(7, 48) / 255, rtol=1e-6)
    np.testing.assert_allclose(found.gaussian.covariance, np.cov(found.features, rowvar=False), atol=1e-9)
    assert found.gaussian.covariance.dtype == np.float64
    known = found.provenance
    assert (known.features, known.digest, known.count, known.source) == ("pixels", "pixels", 7, "a")
    assert known.image_sizes == ((4, 4),)


def test_a_folder_and_its_zip_are_the_same(tmp_path: Path) -> None:
    folder = _write(tmp_path / "a", _pictures(9))
    of_folder = measure(folder, PIXELS, batch_size=2)
    of_zip = measure(_zipped(folder, tmp_path / "a.zip"), PIXELS, batch_size=2)
    np.testing.assert_array_equal(of_folder.features, of_zip.features)
    assert of_folder.provenance.fingerprint == of_zip.provenance.fingerprint
    assert of_zip.provenance.source == "a.zip"


def test_the_fingerprint_is_of_names_and_sizes(tmp_path: Path) -> None:
    prints = [
        measure(_write(tmp_path / name, _pictures(3)), PIXELS, batch_size=2).provenance.fingerprint for name in "ab"
    ]
    assert prints[0] == prints[1]
    (tmp_path / "b" / "000001.png").rename(tmp_path / "b" / "000007.png")
    assert measure(tmp_path / "b", PIXELS, batch_size=2).provenance.fingerprint != prints[0]


@pytest.mark.parametrize("zipped", [False, True])
def test_the_preview_and_unfinished_files_are_no_samples(tmp_path: Path, zipped: bool) -> None:
    folder = _write(tmp_path / "a", _pictures(3))
    _write(folder / "000009.png.partial", _pictures(1))
    (folder / ".000003.png").write_bytes(b"no image")
    (folder / "000003.png.partial").write_bytes(b"no image")
    Image.fromarray(_pictures(1, size=12)[0]).save(folder / "grid.png")

    def source() -> Path:
        return _zipped(folder, tmp_path / "a.zip") if zipped else folder

    with pytest.raises(MetricError, match="one size"):  # without samples.json, a grid.png is an image like any other
        measure(source(), PIXELS, batch_size=2)
    (folder / "samples.json").write_text("{}")
    assert measure(source(), PIXELS, batch_size=2).count == 3


def test_grey_becomes_colour_and_other_formats_are_read(tmp_path: Path) -> None:
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4)
    (tmp_path / "a").mkdir()
    Image.fromarray(grey).save(tmp_path / "a" / "0.png")
    Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2)).save(tmp_path / "a" / "1.webp", lossless=True)
    Image.fromarray(grey).save(tmp_path / "a" / "2.jpg", quality=100)
    features = measure(tmp_path / "a", PIXELS, batch_size=2).features
    assert features is not None
    np.testing.assert_allclose(features[0], np.repeat(grey.ravel(), 3) / 255, rtol=1e-6)
    np.testing.assert_array_equal(features[0], features[1])
    np.testing.assert_allclose(features[0], features[2], atol=4 / 255)


def test_class_folders_are_one_set(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        _write(tmp_path / "a" / name, _pictures(2))
    assert measure(tmp_path / "a", PIXELS, batch_size=3).count == 4


def test_broken_images_are_all_counted_and_the_first_named(tmp_path: Path) -> None:
    folder = _write(tmp_path / "a", _pictures(20))
    for index in (3, 5, 11, 19):
        whole = (folder / f"{index:06d}.png").read_bytes()
        (folder / f"{index:06d}.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MetricError, match="4 of 20 images cannot be read") as raised:
        measure(folder, PIXELS, batch_size=2)
    assert all(f"{index:06d}.png" in raised.value.message for index in (3, 5, 11))
    assert "000019" not in raised.value.message


def test_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="two images"):
        measure(_write(tmp_path / "a", _pictures(1)), PIXELS, batch_size=2)
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(DataError, match=name):
            measure(tmp_path / name, PIXELS, batch_size=2)


def test_two_sizes_in_different_batches_are_named(tmp_path: Path) -> None:
    folder = _write(tmp_path / "a", _pictures(5))
    Image.fromarray(_pictures(1, size=6)[0]).save(folder / "9.png")
    with pytest.raises(MetricError, match=r"000000\.png is 4x4 pixels, .*9\.png is 6x6"):
        measure(folder, PIXELS, batch_size=1)


def test_an_extractor_that_refuses_is_told_with_the_folder(tmp_path: Path) -> None:
    folder = _write(tmp_path / "a", _pictures(3, size=40))
    with pytest.raises(MetricError, match=r"a: features pixels are for small images") as raised:
        measure(folder, PIXELS, batch_size=2)
    assert raised.value.hint == "Use --features inception."


def test_decoding_runs_beside_the_network_and_never_far_ahead(tmp_path: Path) -> None:
    folder, prepared, lead = _write(tmp_path / "a", _pictures(60)), [], []
    threads: set[str] = set()

    def prepare(image: np.ndarray) -> np.ndarray:
        threads.add(threading.current_thread().name)
        prepared.append(1)
        return image.astype(np.float32)

    def network(images: torch.Tensor) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        lead.append(len(prepared) - sum(lead_batch))
        lead_batch.append(len(images))
        return images.flatten(1)

    lead_batch: list[int] = []
    measure(folder, Extractor("own", 48, "own", prepare, network), batch_size=4)
    assert lead_batch == [4] * 15
    assert threading.current_thread().name not in threads
    assert max(lead) <= 2 * 4 + embedding._THREADS + 4


def test_whoever_watches_is_told_of_every_batch(tmp_path: Path) -> None:
    told: list[tuple[object, ...]] = []

    @contextlib.contextmanager
    def watch(title: str, total: int) -> Iterator[Advance]:
        told.append((title, total))
        yield lambda done, remark: told.append((done,))

    with watched.given(watch):
        measure(_write(tmp_path / "a", _pictures(5)), PIXELS, batch_size=2)
    assert told == [("measure a", 5), (2,), (4,), (5,)]
