"""Sizes of images as people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dmp_cli.config import EvalConfig, NetworkOptions, Sides, build, sides_of
from dmp_cli.errors import ConfigError


@pytest.mark.parametrize(
    ("written", "kept", "sides"),
    [
        (512, 512, (512, 512)),
        ("512", 512, (512, 512)),
        ("512x512", 512, (512, 512)),
        ("832x1216", "832x1216", (1216, 832)),  # width first; a tensor has the height first
        ("1216X832", "1216x832", (832, 1216)),
    ],
)
def test_what_is_kept_of_a_size(written: Any, kept: Any, sides: tuple[int, int]) -> None:
    found = build(NetworkOptions, image_size=written).image_size
    assert found == kept
    assert type(found) is type(kept)
    assert found is not None
    assert sides_of(found) == sides
    assert Sides(*sides).written == kept


@pytest.mark.parametrize("wrong", ["0", 0, -8, "8x", "x8", "8x0", "8 x 8", "8x8x8", "1.5", 1.5, True, "9" * 9, "a", []])
def test_what_is_no_size(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"^--image-size .*: give pixels: a side such as 512, or width x height"):
        build(NetworkOptions, image_size=wrong)


def test_a_crop_is_a_size_too() -> None:
    how: dict[str, Any] = {"samples": (Path("drawn"),), "reference": "real"}
    assert build(EvalConfig, crop="64x32", **how).crop == "64x32"
    assert build(EvalConfig, crop="none", **how).crop == "none"
    assert build(EvalConfig, **how).crop is None
    with pytest.raises(ConfigError, match=r"^--crop 0: give pixels: .*, or none$"):
        build(EvalConfig, crop="0", **how)
