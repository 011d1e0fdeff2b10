"""Where the images that are scored are: a folder with or without tars, a zip, or one array in an .npz."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ..data import (
    BOUNDS,
    Bounds,
    ImageSource,
    ShardImages,
    describe_kinds,
    find_images,
    hint_for_kinds,
    naming,
    open_zip,
    read_member,
    tars_in,
)
from ..errors import MetricError
from .array_images import ArrayImages

_RULES = 2  # see dmp_cli.data.kinds


def find_samples(path: Path, *, bounds: Bounds = BOUNDS) -> tuple[ImageSource, np.ndarray]:
    """Find the images of a folder, .zip or .npz, and the indices of those that are samples, (n,) int64.

    The preview ``grid.png`` that ``dmp sample`` writes beside ``samples.json`` is not a sample. Images are listed by
    the second rules for good, so that the fingerprints in reports and statistics stay what they are.

    Raises:
        DataError: there are no images.
        MetricError: there are fewer than two samples, some are not in their tar yet, or some are of a kind that is not
            read.
    """
    source: ImageSource
    if path.is_dir() and (tars := tars_in(path)):
        if loose := sum(inner.stem.isdigit() and inner.suffix == ".png" for inner in path.iterdir()):
            raise MetricError(
                f"{path}: {loose} images are not in a tar yet",
                hint="Run the dmp sample command of this folder again until it ends.",
            )
        for tar in tars:
            bounds.check_link(tar, folder=path)
        source = ShardImages(path, tars, bounds=bounds)
    elif path.suffix == ".npz":
        source = ArrayImages(path)
    else:
        source = find_images(path, rules=_RULES, bounds=bounds)
    if source.passed_over:
        raise MetricError(
            f"{path}: {describe_kinds(source.passed_over)}; a score over fewer images does not compare with others",
            hint=hint_for_kinds(source.passed_over),
        )
    grid = None
    if read_beside(source.path, "samples.json") is not None:
        grid = f"{source.path}/grid.png".encode("utf-8", "backslashreplace").decode()  # as the source names it
    indices = np.arange(len(source))
    if grid is not None:
        indices = np.delete(indices, [index for index in range(len(source)) if source.name(index) == grid])
    if len(indices) < 2:
        raise MetricError(f"{path}: a score needs at least two images, and there are {len(indices)}")
    return source, indices


def read_beside(path: Path, name: str) -> bytes | None:
    """Read the file ``name`` at the top of a folder or zip, or beside ``samples.npz``. None: there is no such file.

    Raises:
        DataError: it cannot be read.
    """
    if path.name == "samples.npz":
        path = path.parent
    with naming(f"{path}/{name}"):
        if path.is_dir():
            return BOUNDS.read(path / name) if (path / name).exists() else None
        if not zipfile.is_zipfile(path):  # shards, or a pattern of them
            return None
        with open_zip(path) as archive:
            return read_member(archive, name, bounds=BOUNDS) if name in archive.namelist() else None
