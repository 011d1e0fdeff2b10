"""The embedded digits: 1,797 real grey images of 8x8 pixels.

Source and licence are in ``README.md`` beside this file. Importing this module imports numpy, but not torch.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..storage import refuse_existing, staged_folder

NUM_CLASSES = 10
IMAGE_SIZE = 8  # pixels
MAX_INK = 16  # the source counts the inked pixels of a 4x4 cell: 0..16
DIGITS_FILE = Path(__file__).with_name("digits.npz")


def grey_from_ink(ink: np.ndarray) -> np.ndarray:
    """Convert ink 0..16 to grey 0..255, uint8: 255 * ink / 16, rounded half up. Strokes are white on black."""
    return ((ink.astype(np.int64) * 255 + MAX_INK // 2) // MAX_INK).astype(np.uint8)


def ink_from_grey(grey: np.ndarray) -> np.ndarray:
    """Invert :func:`grey_from_ink`. Any other grey becomes the nearest ink, uint8 in 0..16."""
    return ((grey.astype(np.int64) * MAX_INK + 127) // 255).astype(np.uint8)


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Load all digits, in the order of the source.

    Returns images (1797, 8, 8), uint8 grey in 0..255 by :func:`grey_from_ink`, and labels (1797,), int64 in 0..9.
    Raises DataError if the file in the package is missing or damaged.
    """
    try:
        with np.load(DIGITS_FILE, allow_pickle=False) as stored:
            ink, labels = stored["images"], stored["labels"]
    except Exception as error:  # numpy raises a different type for every way a zip can be broken
        raise DataError(f"{DIGITS_FILE}: cannot read the embedded digits", hint="Install dmp-cli again.") from error
    return grey_from_ink(ink), labels.astype(np.int64)


def write_digits(folder: Path) -> int:
    """Write every digit as an 8-bit grey PNG, ``folder/LABEL/NNNN.png`` with its index NNNN. Returns their number.

    The folder appears whole or not at all. Raises ConfigError if it exists and is not empty.
    """
    folder = Path(folder)
    refuse_existing(folder, force=False)
    images, labels = load_digits()
    with staged_folder(folder) as staged:
        for label in range(NUM_CLASSES):
            (staged / str(label)).mkdir()
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            (staged / str(label) / f"{index:04d}.png").write_bytes(_png(image))
    return len(images)


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
