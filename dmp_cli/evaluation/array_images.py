"""Images in one array of an .npz, as ``dmp sample --npz`` and ADM's evaluation write them: ``arr_0``, uint8.

N images of H x W pixels with C channels.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from ..data import ImageSource, Stamp
from ..errors import DataError, MetricError
from ..storage import let_go, list_entries, map_array, read_arrays

_ENTRY = "arr_0"
_AT_ONCE = 512  # images whose pages stay in memory


class ArrayImages(ImageSource):
    """The images of ``arr_0`` (N, H, W, C), in their order. They are read where they lie, one at a time.

    Raises:
        DataError: the file is missing or damaged.
        MetricError: it holds no array of images.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.passed_over, self.classes = Path(path), {}, []
        if not self.path.is_file():
            raise DataError(f"{path} does not exist")
        entry = list_entries(self.path, kind=DataError).get(f"{_ENTRY}.npy")
        if entry is None:
            raise MetricError(f"{path} holds no images (arr_0)", hint="Give a file that dmp sample --npz wrote.")
        self._pixels = _map(self.path, entry)
        shape = self._pixels.shape
        if self._pixels.dtype != np.uint8 or len(shape) not in (3, 4) or shape[3:] not in ((), (1,), (3,)):
            raise MetricError(f"{path} holds {self._pixels.dtype} {shape}, not uint8 images (N, height, width, 3)")
        self.labels = np.zeros(len(self._pixels), np.int64)
        self.fingerprint = hashlib.sha256(f"{_ENTRY}.npy {shape} {entry.CRC}".encode()).hexdigest()

    @property
    def captioned(self) -> np.ndarray:
        return np.zeros(len(self), bool)

    def captions(self, index: int) -> list[str]:
        raise DataError(f"{self.name(index)} has no caption")

    def name(self, index: int) -> str:
        return f"{self.path}, image {index}"

    def read(self, index: int) -> bytes:
        """Image ``index`` as a file of portable pixels (PPM or PGM)."""
        pixels = np.asarray(self._pixels[index])
        if index % _AT_ONCE == 0:
            let_go(self._pixels)
        kind = b"P6" if pixels.shape[2:] == (3,) else b"P5"
        return b"%s\n%d %d\n255\n" % (kind, pixels.shape[1], pixels.shape[0]) + pixels.tobytes()

    def stamp(self, index: int) -> Stamp:
        return Stamp(len(self.read(index)), self.path.stat().st_mtime_ns)


def holds_images(path: Path) -> bool:
    """Whether an .npz holds images and no statistics of them."""
    try:
        names = list_entries(path, kind=DataError).keys()
    except DataError:
        return False
    return f"{_ENTRY}.npy" in names and not {"mu.npy", "provenance.npy"} & names


def _map(path: Path, entry: zipfile.ZipInfo) -> np.ndarray:
    """The array, mapped where the zip stores it as it is; else in memory."""
    if entry.compress_type != zipfile.ZIP_STORED:
        return read_arrays(path, [_ENTRY], kind=DataError)[_ENTRY]
    mapped = map_array(path, _ENTRY, kind=DataError)
    assert mapped is not None
    return mapped
