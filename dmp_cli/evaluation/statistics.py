"""Statistics of a set of images: its feature vectors, their Gaussian and their provenance; reads and writes its file.

Letters: n images, d features.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ..config import Growing, ImageSize
from ..errors import MetricError
from ..storage import let_go, make_folder, map_array, read_arrays, staged_file
from .distances import Gaussian

_LARGEST = 1e60  # beyond it sums of squares overflow
_ROUNDING = 1e-6  # beside the largest value; times d for an eigenvalue
_KEYS = ("mu", "sigma", "provenance", "digest")
_FEATURES = "features"
_ROWS = 4096  # images whose features are in memory at a time, where they are mapped from a file


class Provenance(Growing):
    """Where statistics come from. A field that is None or empty is unknown, as in files of other tools."""

    later = frozenset({"jpegs", "part"})

    features: str | None = None  # name of the extractor
    digest: str | None = None  # SHA-256 of its weights
    count: int | None = None  # n
    source: str | None = None  # name of the folder or zip
    fingerprint: str | None = None  # SHA-256 over names and sizes of the image files
    image_sizes: tuple[tuple[int, int], ...] = ()  # distinct (width, height) in pixels, sorted; after cropping
    resize: str | None = None  # how the extractor resizes them to the size of its network
    crop: ImageSize | None = None  # size in pixels of the centres; None: no crop
    codec: str | None = None  # SHA-256 of the VAE they went through; None: no VAE
    jpegs: int | None = None  # how many of the files are JPEGs
    part: tuple[int, int] | None = None  # which part of the images, from 0, and of how many; None: all


@dataclass(frozen=True)
class Statistics:
    """What metrics need to know about one set of images."""

    gaussian: Gaussian
    features: np.ndarray | None  # (n, d), float32, perhaps mapped; None: only mean and covariance are known
    provenance: Provenance

    @property
    def count(self) -> int | None:
        """Number of images, n; None: unknown."""
        return self.provenance.count

    @property
    def width(self) -> int:
        """Number of features, d."""
        return len(self.gaussian.mean)


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Write one .npz: ``mu`` and ``sigma`` as other tools name them, features, provenance, and a digest over all.

    Features that are mapped from a file go through memory block by block.
    """
    content: dict[str, Any] = {
        "provenance": np.array(statistics.provenance.model_dump_json()),
        "mu": statistics.gaussian.mean,
        "sigma": statistics.gaussian.covariance,
    }
    if statistics.features is not None:
        content[_FEATURES] = statistics.features
    # Digest and provenance mark the file as ours. They come first: damage to the directory of a zip loses the entries
    # behind it.
    content = {"digest": np.array(_digest(content)), **content}
    make_folder(path.parent, of=path)
    with staged_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for key, array in content.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
                header = np.lib.format.header_data_from_array_1_0(array) | {"fortran_order": False}
                np.lib.format.write_array_header_1_0(entry, header)
                for block in _blocks(array):
                    entry.write(block)


def load_statistics(path: Path) -> Statistics:
    """Read a file of :func:`save_statistics`, or one of another tool with ``mu`` and ``sigma`` (provenance unknown).

    Features stay in the file, which is mapped; only compressed ones are read whole.

    Nothing in the file is executed. Raises MetricError if it is missing, damaged, changed, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise MetricError(f"{path}: there is no such statistics file")
    content = read_arrays(path, _KEYS, kind=MetricError)
    if not {"mu", "sigma"} <= content.keys():
        raise MetricError(
            f"{path} holds no mean and covariance (mu, sigma)", hint="Give a file that --save-stats wrote."
        )
    # One of the two names is enough: a file of ours with one of them damaged must not pass as another tool's.
    own = bool({"provenance", "digest"} & content.keys())
    if own and (features := _map_features(path)) is not None:
        content[_FEATURES] = features
    provenance = _checked_provenance(path, content) if own else Provenance()
    mean, covariance = content["mu"], content["sigma"]
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not _finite(mean) or not _finite(covariance):
        raise MetricError(f"{path}: mu {mean.shape} and sigma {covariance.shape} are not a finite mean and covariance")
    if not _is_covariance(covariance.astype(np.float64)):
        raise MetricError(
            f"{path}: sigma is no covariance: it is not symmetric, or has a negative eigenvalue",
            hint="Measure the images again.",
        )
    if (features := content.get(_FEATURES)) is not None:
        _check_features(features, (provenance.count, len(mean)), path)
    gaussian = Gaussian(mean.astype(np.float64), covariance.astype(np.float64))
    return Statistics(gaussian, features, provenance)


def _checked_provenance(path: Path, content: dict[str, np.ndarray]) -> Provenance:
    digest = content.pop("digest", None)
    if digest is None or "provenance" not in content or str(digest) != _digest(content):
        raise MetricError(f"{path} was damaged or changed after it was written", hint="Measure the images again.")
    try:
        return Provenance.model_validate_json(str(content["provenance"]))
    except ValidationError as error:
        raise MetricError(f"{path} was written by another version of dmp", hint="Measure the images again.") from error


def _digest(content: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for key in sorted(content):
        array = content[key]
        shape = array.shape or (1,)  # a single value counts as a row of one, as in files of earlier versions
        digest.update(f"{key} {array.dtype} {shape}\n".encode())
        for block in _blocks(array):
            digest.update(block)
    return digest.hexdigest()


def _blocks(array: np.ndarray) -> Iterator[bytes]:
    """The bytes of an array, row by row, some rows at once."""
    if array.ndim == 0:
        yield array.tobytes()
        return
    for start in range(0, len(array), _ROWS):
        yield array[start : start + _ROWS].tobytes()
        let_go(array)


def _map_features(path: Path) -> np.ndarray | None:
    mapped = map_array(path, _FEATURES, kind=MetricError, copies=True)
    return read_arrays(path, [_FEATURES], kind=MetricError).get(_FEATURES) if mapped is None else mapped


def _check_features(features: np.ndarray, expected: tuple[int | None, int], path: Path) -> None:
    if features.shape != expected:
        raise MetricError(f"{path} holds features {features.shape}, but its record says {expected}")
    if not all(_are_finite(features)):
        raise MetricError(f"{path}: its features are not all finite", hint="Measure the images again.")


def _are_finite(features: np.ndarray) -> Iterator[bool]:
    for start in range(0, len(features), _ROWS):
        yield _finite(features[start : start + _ROWS])
        let_go(features)


def _is_covariance(matrix: np.ndarray) -> bool:
    """Whether a finite matrix (d, d) is symmetric and has no negative eigenvalue, both beyond rounding in float32."""
    scale = max(float(np.abs(matrix).max(initial=0.0)), np.finfo(np.float64).tiny)
    matrix = matrix / scale  # else the squares of large values overflow
    if float(np.abs(matrix - matrix.T).max(initial=0.0)) > _ROUNDING:
        return False
    # A matrix with a slightly larger diagonal has a Cholesky factor, which is 20 times as fast as its eigenvalues.
    try:
        np.linalg.cholesky(matrix + _ROUNDING * len(matrix) * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        return False
    return True


def _finite(array: np.ndarray) -> bool:
    """Whether all are numbers, and their squares are too."""
    return array.dtype.kind == "f" and float(np.abs(array).max(initial=0)) < _LARGEST  # not for not-a-numbers
