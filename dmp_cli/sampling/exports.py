"""What is made of a complete set of samples: a labelled grid of the first images, and one npz file of all images.

N images of H x W pixels with C channels. ``pixels`` is a function that returns image ``index``, uint8 (H, W, C).
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..storage import staged_file

if TYPE_CHECKING:
    from .plan import Item, Plan

Pixels = Callable[[int], np.ndarray]

_LABEL = 24  # letters of a prompt that stand under its image


def draw_labelled_grid(pixels: Pixels, plan: Plan, *, rows: int, columns: int) -> bytes:
    """A PNG of the first ``rows`` x ``columns`` images; index and class, or prompt, stand under each image."""
    from ..report import draw_image_grid

    indices = range(min(plan.config.num_images, rows * columns))
    labels = [_label(index, plan.item(index)) for index in indices]
    return draw_image_grid([pixels(index) for index in indices], rows=rows, columns=columns, labels=labels)


def write_npz(path: Path, pixels: Pixels, *, num_images: int, labels: np.ndarray | None) -> None:
    """Write ``arr_0``, all images (N, H, W, C) uint8, and with ``labels`` (N,) ``arr_1``: ADM's evaluation format.

    One image at a time is in memory.
    """
    first = pixels(0)
    with staged_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as entry:
            header = {"descr": "|u1", "fortran_order": False, "shape": (num_images, *first.shape)}
            np.lib.format.write_array_header_1_0(entry, header)
            for index in range(num_images):
                entry.write(pixels(index).tobytes())
        if labels is not None:
            with archive.open("arr_1.npy", "w") as entry:
                np.lib.format.write_array(entry, labels)


def _label(index: int, item: Item) -> str:
    text = f"class {item.label}" if item.label is not None else _shorten(item.prompt or "")
    return f"{index}: {text}" if text else f"{index}"


def _shorten(text: str) -> str:
    return text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"
