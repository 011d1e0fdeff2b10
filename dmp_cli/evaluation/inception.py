"""The Inception network of FID: finds its file, checks it and opens it. No other module imports clean-fid."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import MetricError
from ..storage import cache_folder, sha256_of

INCEPTION_NAME = "inception-2015-12-05.pt"
INCEPTION_BYTES = 95_607_719
INCEPTION_DIGEST = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"  # SHA-256
INCEPTION_WIDTH = 2048
CLEAN_RESIZE = "clean-fid, bicubic to 299"  # stored as provenance


def find_inception(path: Path | None = None) -> Path:
    """Find the Inception file and check its SHA-256.

    Raises MetricError if it is missing or damaged; the error says where it was looked for and how to get it.
    """
    path, origin = _locate_inception(path)
    if not path.is_file():
        raise MetricError(f"no Inception weights at {path} ({origin})", hint=_download_hint())
    if (digest := sha256_of(path)) != INCEPTION_DIGEST:
        size = path.stat().st_size
        problem = f"{size:,} of {INCEPTION_BYTES:,} bytes" if size != INCEPTION_BYTES else f"SHA-256 {digest}"
        raise MetricError(f"{path} ({origin}) is damaged or another network: it has {problem}", hint=_download_hint())
    return path


def _locate_inception(path: Path | None) -> tuple[Path, str]:
    if path is not None:
        return Path(path), "--inception-weights"
    if named := os.environ.get("DMP_INCEPTION"):
        return Path(named), "$DMP_INCEPTION"
    place = cache_folder()
    if place is None:
        raise MetricError(
            "no Inception weights: neither --inception-weights nor $DMP_INCEPTION is given, and this user has no home "
            "folder",
            hint=_download_hint(),
        )
    return place / INCEPTION_NAME, "the user cache; neither --inception-weights nor $DMP_INCEPTION is given"


def _download_hint() -> str:
    from cleanfid.downloads_helper import inception_url

    place = cache_folder()
    return (
        f"Download {inception_url} ({INCEPTION_BYTES:,} bytes, SHA-256 {INCEPTION_DIGEST}) and give the file with "
        "--inception-weights or in $DMP_INCEPTION" + (f", or put it at {place / INCEPTION_NAME}." if place else ".")
    )


def open_inception(path: Path, *, device: str) -> torch.nn.Module:
    """Open the network in the file ``path``, in the wrapper of clean-fid.

    It maps float32 (B, 3, 299, 299) in [0, 255] to (B, 2048).
    """
    from cleanfid.inception_torchscript import InceptionV3W

    with _folder_for_cleanfid(path) as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit")  # DeprecationWarning or FutureWarning
        return InceptionV3W(str(folder), download=False).eval().to(device)


def inception_classifier(network: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """The last layer of the network without its bias, (n, 2048) -> (n, 1008) logits; None: it has no such layer.

    The original code of the Inception score leaves the bias out, and later code follows it.
    """
    try:
        weight = network.base.output.weight.detach().float().cpu()  # (1008, 2048)
    except AttributeError:
        return None
    return lambda features: (torch.from_numpy(features) @ weight.T).numpy()


@contextlib.contextmanager
def _folder_for_cleanfid(path: Path) -> Iterator[Path]:
    """A folder that holds the weights under the only name that clean-fid looks for."""
    if path.name == INCEPTION_NAME:
        yield path.parent
        return
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(path, Path(folder) / INCEPTION_NAME)
        yield Path(folder)


def clean_resize() -> Callable[[np.ndarray], np.ndarray]:
    """The resizing of clean-fid: maps one image, uint8 (H, W, 3), to float32 (3, 299, 299) in [0, 255]."""
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    return lambda image: np.ascontiguousarray(resize(image).transpose(2, 0, 1))  # (3, 299, 299), 0..255
