"""What is said of a data set before it is trained on: sizes and colours as they are, not as files claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmp_cli.data import find_images, look_at


def save(folder: Path, *pictures: Image.Image, suffix: str = "png") -> Path:
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number:03d}.{suffix}")
    return folder


def colours(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def grey(width: int, height: int) -> Image.Image:
    return colours(width, height).convert("L")


@pytest.mark.parametrize(
    ("pictures", "size", "channels", "expected"),
    [
        ([colours(178, 218)] * 3, 64, 3, "3 images 178x218 RGB, centre square, to 64x64"),
        ([colours(178, 218)] * 20, 64, 3, "20 images 178x218 RGB (16 looked at), centre square, to 64x64"),
        ([colours(8, 8)], 8, 3, "1 image 8x8 RGB"),
        ([colours(9, 8)], 8, 3, "1 image 9x8 RGB, centre square"),
        ([colours(8, 8)], 16, 3, "1 image 8x8 RGB, enlarged to 16x16"),
        ([grey(28, 28)] * 2, 28, 1, "2 images 28x28 grey"),
        ([colours(28, 28)] * 2, 28, 1, "2 images 28x28 RGB, as grey"),
        (
            [grey(30, 20), colours(8, 9), colours(64, 64)],
            16,
            3,
            "3 images 8x9 to 64x64 RGB and grey, centre square, to 16x16",
        ),
    ],
)
def test_in_words(tmp_path: Path, pictures: list[Image.Image], size: int, channels: int, expected: str) -> None:
    looks = look_at(find_images(save(tmp_path / "data", *pictures)))
    assert looks.in_words(image_size=size, channels=channels) == expected


def test_grey_is_what_has_no_colours(tmp_path: Path) -> None:
    picture = grey(16, 16)
    for mode in ("RGB", "RGBA", "P", "1", "LA", "CMYK"):
        suffix = "tif" if mode == "CMYK" else "png"
        folder = save(tmp_path / mode, picture.convert("RGB").convert(mode), suffix=suffix)
        assert look_at(find_images(folder)).colourful == [], mode
    folder = save(tmp_path / "jpeg", picture.convert("RGB"), suffix="jpg")
    assert look_at(find_images(folder)).colourful == []
    dot = picture.convert("RGB")
    dot.putpixel((3, 4), (250, 20, 20))
    assert look_at(find_images(save(tmp_path / "dot", dot))).colourful == [f"{tmp_path}/dot/000.png"]


def test_unreadable_ones_are_passed_over(tmp_path: Path) -> None:
    folder = save(tmp_path / "data", colours(8, 8))
    (folder / "000.png").write_bytes(b"no picture")
    assert look_at(find_images(folder)).in_words(image_size=8, channels=3) == "1 image"
