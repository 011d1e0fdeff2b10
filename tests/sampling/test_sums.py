"""The checksums of a folder of samples: their format, and which images they find missing or changed."""

import hashlib

import numpy as np
from PIL import Image

from dmp_cli.sampling.sampler import chunks

from .conftest import CONFIG, pixels_of


def test_sums_are_those_of_sha256sum(filled):
    head, *lines = (filled.path / "SHA256SUMS").read_text().splitlines()
    assert head.startswith("# samples made as ")  # a comment, which sha256sum passes over
    for line, index in zip(lines, range(7), strict=True):
        data = filled.image_path(index).read_bytes()
        assert line == f"{hashlib.sha256(data).hexdigest()}  {index:06d}.png"
    assert filled.verify(7) == []


def test_what_is_not_as_it_was_written_is_named(filled):
    filled.image_path(1).unlink()
    Image.fromarray(pixels_of(50)).save(filled.image_path(3))
    Image.fromarray(pixels_of(51)).save(filled.path / "000007.png")
    Image.fromarray(pixels_of(51)).save(filled.path / "mine.png")
    assert filled.verify(7) == [
        "000001.png is missing",
        "000003.png was changed",
        "000007.png does not belong to these samples",
        "mine.png does not belong to these samples",
    ]
    assert filled.verify(1) == [f"{name}.png does not belong to these samples" for name in ("000007", "mine")]


def test_an_image_without_its_checksum_is_written_again(filled):
    sums = filled.path / "SHA256SUMS"
    whole = sums.read_text()
    sums.write_text(whole[:-20])  # a kill in the middle of the last line
    Image.fromarray(pixels_of(50)).save(filled.image_path(6))  # and nobody knows what this is
    assert filled.missing(chunks(CONFIG), num_images=7) == [range(6, 9)]
    filled.write({6: pixels_of(6)})
    assert filled.verify(7) == []
    assert np.array_equal(np.asarray(Image.open(filled.image_path(6))), pixels_of(6))
    filled.write({7: pixels_of(7)})
    assert filled.verify(8) == []
