"""Latent stores of images of several shapes: each bucket has its own; killed and continued, and changed images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dmp_cli.config import Sides
from dmp_cli.data import BucketReader, BucketRule, Buckets, Subset, as_floats, fill_buckets, find_images, find_pictures
from dmp_cli.data.readers import LiveReader
from dmp_cli.errors import ConfigError, StoppedError
from dmp_cli.latents.fill import describe_store, encode_missing
from dmp_cli.latents.store import LatentStore

from .stores import latent_dit, vae_codec

CPU = torch.device("cpu")
RULE = BucketRule(Sides(16, 16), 4, 8, 32)


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Ten wide, square and tall pictures each, in turn."""
    folder, draw = tmp_path / "shapes", np.random.default_rng(0)
    folder.mkdir()
    for index, (width, height) in enumerate([(24, 16), (16, 16), (16, 32)] * 10):
        pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    return folder


def stores_of(folder: Path, place: Path) -> tuple[Buckets, list[tuple[LatentStore, Subset]]]:
    images, codec, backbone = find_images(folder), vae_codec(), latent_dit()
    buckets, _ = fill_buckets(find_pictures(images), RULE, batch_size=4)
    found = []
    for number, (members, sides) in enumerate(zip(buckets.members, buckets.sizes, strict=True)):
        part = Subset(images, members)
        record = describe_store(
            part, codec, backbone, flip=True, size=sides.written, members=buckets.digest(number)
        ).model_copy(update={"rows": 4})
        found.append((LatentStore(place / sides.in_words, record), part))
    return buckets, found


def fill(stores: list[tuple[LatentStore, Subset]], stop: object = None) -> None:
    codec = vae_codec()
    for store, part in stores:
        store.claim()
        how = {} if stop is None else {"stop": stop}
        list(encode_missing(store, images=part, codec=codec, device=CPU, max_bad=0, **how))  # type: ignore[arg-type]


def contents(place: Path) -> dict[str, bytes]:
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*.safetensors") if "sources" not in p.name}


def test_each_image_is_kept_at_the_size_of_its_bucket(shapes: Path, tmp_path: Path) -> None:
    buckets, stores = stores_of(shapes, tmp_path / "store")
    fill(stores)
    reader, codec, images = BucketReader(buckets, [store for store, _ in stores]), vae_codec(), find_images(shapes)
    assert [store.record.image_size for store, _ in stores] == ["20x12", 16, "12x20"]
    for index in range(30):
        sides = buckets.sizes[int(buckets.bucket[index])]
        pixels = LiveReader(images, image_size=sides.written, channels=3).read(index, mirrored=True)
        expected = codec.measure(as_floats(torch.from_numpy(pixels)[None]))[0]
        found = torch.from_numpy(reader.read(index, mirrored=True))
        assert found.shape[1:] == (sides.height // codec.factor, sides.width // codec.factor)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # encoded eight at a time


def test_killed_and_continued(shapes: Path, tmp_path: Path) -> None:
    calls = Counter[str]()

    def stop() -> None:
        calls["stop"] += 1
        if calls["stop"] > 9:
            raise StoppedError("enough", signal_number=15)

    with pytest.raises(StoppedError):
        fill(stores_of(shapes, tmp_path / "store")[1], stop)
    _, stores = stores_of(shapes, tmp_path / "store")
    left = [len(store.missing()) for store, _ in stores]
    assert 0 < sum(left) < 9
    fill(stores)
    fill(stores_of(shapes, tmp_path / "other")[1])
    assert contents(tmp_path / "store") == contents(tmp_path / "other")
    assert len(contents(tmp_path / "store")) == 9


def test_other_images_of_a_bucket_are_another_store(shapes: Path, tmp_path: Path) -> None:
    _, stores = stores_of(shapes, tmp_path / "store")
    fill(stores)
    square = stores[1][0].record
    plain = square.model_copy(update={"members": None})
    assert "members" not in plain.model_dump()  # stores of one size keep their bytes
    assert square.key != plain.key
    for other in (plain, square.model_copy(update={"members": "0" * 64})):
        with pytest.raises(ConfigError, match="other images, or not those of one bucket"):
            LatentStore(tmp_path / "store" / "16x16", other).check()
