"""A reference is cropped as the samples were, can go through their VAE, and is refused if it does not fit them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dmp_cli.config import EvalConfig
from dmp_cli.data.decoding import center_crop
from dmp_cli.errors import MetricError
from dmp_cli.evaluation.scoring import evaluate
from dmp_cli.evaluation.statistics import Provenance, load_statistics, save_statistics
from tests.backbones.pipelines import tiny_vae

torch.set_num_threads(1)


def folder_of(path: Path, *, size: tuple[int, int], seed: int, record: dict[str, Any] | None = None) -> Path:
    path.mkdir()
    pixels = np.random.default_rng(seed).integers(0, 256, (12, *size, 3), np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(path / f"{index:06d}.png")
    if record is not None:
        (path / "samples.json").write_text(json.dumps({"made": record}))
    return path


def config(samples: Path, reference: Path, **options: Any) -> EvalConfig:
    return EvalConfig(samples=(samples,), reference=reference, features="pixels", bootstrap=0, **options)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "samples", size=(8, 8), seed=0, record={"image_size": 8})


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A reference of another size than the samples."""
    return folder_of(tmp_path / "wide", size=(20, 31), seed=1)


def test_images_of_another_size_are_refused_unless_cut(samples: Path, wide: Path, tmp_path: Path) -> None:
    with pytest.raises(MetricError, match=r"holds images of 31x20 pixels, but .*samples of 8x8") as raised:
        evaluate(config(samples, wide))
    assert "--crop 8" in str(raised.value.hint)
    cut = tmp_path / "cut"
    cut.mkdir()
    for path in sorted(wide.glob("*.png")):
        center_crop(Image.open(path), image_size=8).save(cut / path.name)
    by_hand = evaluate(config(samples, cut)).rows[0].scores
    found = evaluate(config(samples, wide, crop=8))
    assert found.rows[0].scores == by_hand
    assert (found.reference_provenance.crop, found.reference_provenance.image_sizes) == (8, ((8, 8),))


def test_saved_statistics_are_compared_with_the_record_of_the_samples(
    samples: Path, wide: Path, tmp_path: Path
) -> None:
    square = folder_of(tmp_path / "square", size=(8, 8), seed=2)
    evaluate(config(square, wide, crop=8, save_stats=tmp_path / "cut.npz"))
    assert evaluate(config(samples, tmp_path / "cut.npz")).reference_provenance.crop == 8
    other = folder_of(tmp_path / "other", size=(8, 8), seed=3, record={"image_size": 16})
    with pytest.raises(MetricError, match="Measure the images again with --crop 16") as raised:
        evaluate(config(other, tmp_path / "cut.npz"))
    assert "resizing them differently would change the score" in raised.value.message
    assert evaluate(config(other, tmp_path / "cut.npz", crop="none")).rows[0].count == 12
    with pytest.raises(MetricError, match="already holds statistics; --crop"):
        evaluate(config(samples, tmp_path / "cut.npz", crop=8))


def test_every_folder_is_compared_with_it_before_the_first_is_measured(
    samples: Path, wide: Path, tmp_path: Path
) -> None:
    other = folder_of(tmp_path / "other", size=(8, 8), seed=3, record={"image_size": 16})
    said: list[str] = []
    options: dict[str, Any] = {"features": "pixels", "bootstrap": 0, "crop": 8}
    with pytest.raises(MetricError, match="other of 16x16"):
        evaluate(EvalConfig(samples=(samples, other), reference=wide, **options), log=said.append)
    assert said == [f"{wide}: measuring the reference"]


def test_a_reference_can_go_through_a_vae(tmp_path: Path) -> None:
    vae = tiny_vae()
    vae.save_pretrained(tmp_path / "vae")
    reference = folder_of(tmp_path / "reference", size=(16, 16), seed=1)
    record = {"image_size": 16, "codec": {"kind": "vae", "digest": "0" * 64}}
    other = folder_of(tmp_path / "other", size=(16, 16), seed=0, record=record)
    plain = folder_of(tmp_path / "plain", size=(16, 16), seed=0)
    decoded = tmp_path / "decoded"
    decoded.mkdir()
    for path in sorted(reference.glob("*.png")):
        pixels = torch.tensor(np.asarray(Image.open(path))).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            back = vae.decode(vae.encode(pixels).latent_dist.mean).sample
        levels = ((back.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)[0].permute(1, 2, 0).numpy()
        Image.fromarray(levels).save(decoded / path.name)
    options = {"reference_vae": str(tmp_path / "vae")}
    found = evaluate(config(plain, reference, **options))
    by_hand = evaluate(config(plain, decoded)).rows[0].scores["fid"].value
    assert found.rows[0].scores["fid"].value == pytest.approx(by_hand, rel=1e-3)
    assert by_hand != pytest.approx(evaluate(config(plain, reference)).rows[0].scores["fid"].value, rel=1e-2)
    assert len(found.reference_provenance.codec or "") == 64
    with pytest.raises(MetricError, match=r"went through the VAE .* come from 000000000000"):
        evaluate(config(other, reference, **options))
    small = folder_of(tmp_path / "small", size=(9, 9), seed=1)
    with pytest.raises(MetricError, match="the VAE takes multiples of"):
        evaluate(config(plain, small, **options))


def test_statistics_of_another_count_than_their_record_are_refused(samples: Path, tmp_path: Path) -> None:
    square = folder_of(tmp_path / "square", size=(8, 8), seed=2)
    evaluate(config(samples, square, save_stats=tmp_path / "s.npz"))
    stored = load_statistics(tmp_path / "s.npz")
    fields = {**stored.provenance.model_dump(), "count": 13}
    save_statistics(tmp_path / "s.npz", type(stored)(stored.gaussian, stored.features, Provenance(**fields)))
    with pytest.raises(MetricError, match="features \\(12, 192\\), but its record says \\(13, 192\\)"):
        evaluate(config(samples, tmp_path / "s.npz"))
