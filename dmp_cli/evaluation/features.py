"""Feature networks: they map images to the feature vectors that scores are computed on.

Letters: B images in a batch, H x W pixels, d features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..errors import MetricError
from ..storage import open_torchscript, sha256_of
from . import inception
from .digit_classifier import CLASSIFIER_FILE, NUM_FEATURES, load_classifier
from .image_encoders import load_vision, square_resize
from .trial import IMAGE, try_network

MAX_PIXEL_FEATURES = 4096  # largest d of ``pixels``: the covariance is d x d

Network = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Extractor:
    """A feature network. Call it with images, uint8 (H, W, 3) of any size, to get their features, float32 (B, d).

    A call has two halves, ``prepare`` and ``embed``, so that threads can prepare images while the network runs.
    """

    name: str  # inception, clip, dinov2, pixels, digits, or the name of the file
    width: int | None  # d; None: it depends on the size of the images
    digest: str  # SHA-256 of the weights, or "pixels"
    prepare: Callable[[np.ndarray], np.ndarray] = field(repr=False)  # one image -> input of the network, float32
    network: Network = field(repr=False)  # (B, ...) -> (B, d)
    device: str = "cpu"
    resize: str = "none"  # how images are resized to the size of the network, in words
    classify: Callable[[np.ndarray], np.ndarray] | None = field(default=None, repr=False)  # (n, d) -> logits (n, c)

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return self.embed([self.prepare(image) for image in images])

    def embed(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Compute features (B, d) of prepared images. Raises MetricError if sizes differ or features are not finite."""
        shapes = sorted({array.shape for array in prepared})
        if len(shapes) > 1:
            raise MetricError(
                f"features {self.name} need images of one size, but these have {shapes[0]} and {shapes[1]}",
                hint="Resize the images, or use --features inception, which resizes them itself.",
            )
        with torch.inference_mode():
            features = self.network(torch.from_numpy(np.stack(prepared)).to(self.device)).float().cpu().numpy()
        if features.ndim != 2 or self.width not in (None, features.shape[1]):
            raise MetricError(f"features {self.name} have shape {features.shape}, not (images, {self.width or 'd'})")
        if not np.isfinite(features).all():
            raise MetricError(f"features {self.name} are not finite for some images")
        return features


def load_extractor(
    name: str, *, inception_weights: Path | None = None, feature_weights: Path | None = None, device: str = "cpu"
) -> Extractor:
    """Load the extractor ``inception``, ``clip``, ``dinov2``, ``pixels`` or ``digits``, or a TorchScript file.

    Args:
        name: one of these five names, or the path of the file.
        inception_weights: the file; None: $DMP_INCEPTION, else the file in the user cache. Nothing is ever downloaded.
        feature_weights: the folder that ``clip`` or ``dinov2`` is loaded from, as the library transformers saves it.
        device: where the network runs, such as "cpu" or "cuda:1".

    The network of a TorchScript file must map float32 (B, 3, 299, 299) in [0, 255] to (B, d); its images are resized
    as clean-fid does.

    Raises:
        MetricError: the weights are missing, damaged or of another digest, or the network would access files, loop
            without end, or takes too long for one image.
    """
    if name == "inception":
        network = inception.open_inception(inception.find_inception(inception_weights), device=device)
        classify = inception.inception_classifier(network)
        width, digest, resize = inception.INCEPTION_WIDTH, inception.INCEPTION_DIGEST, inception.clean_resize()
        return Extractor(name, width, digest, resize, network, device, inception.CLEAN_RESIZE, classify)
    if name in ("clip", "dinov2"):
        vision = load_vision(name, feature_weights, device=device)
        how = "bicubic to 224, central square"
        return Extractor(name, vision.width, vision.digest, square_resize, vision.network, device, how)
    if name == "pixels":
        return Extractor(name, None, name, _as_grid, _flatten)
    if name == "digits":
        return _digits(device)
    return _from_file(Path(name), device)


def _as_grid(image: np.ndarray) -> np.ndarray:
    if image.size > MAX_PIXEL_FEATURES:
        raise MetricError(
            f"features pixels are for small images: {image.shape} gives {image.size} features, "
            f"and the limit is {MAX_PIXEL_FEATURES}",
            hint="Use --features inception.",
        )
    return image.astype(np.float32) / 255  # (H, W, 3)


def _flatten(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)  # (B, H*W*3)


def _digits(device: str) -> Extractor:
    classifier = load_classifier().to(device)
    return Extractor("digits", NUM_FEATURES, sha256_of(CLASSIFIER_FILE), _as_grey, classifier, device)


def _as_grey(image: np.ndarray) -> np.ndarray:
    return image.mean(2, dtype=np.float32)[None]  # (1, H, W), 0..255


def _from_file(path: Path, device: str) -> Extractor:
    if not path.is_file():
        raise MetricError(
            f"--features {path} is neither inception, clip, dinov2, pixels, digits nor an existing TorchScript file",
            hint="Give one of the names, or the path of a TorchScript file.",
        )
    network, digest = open_torchscript(path, device=device), sha256_of(path)
    tried = None if digest == inception.INCEPTION_DIGEST else try_network(path)
    try:
        with torch.inference_mode():
            shape = tuple(network(torch.zeros(IMAGE, device=device)).shape)
    except (RuntimeError, AttributeError) as error:
        raise MetricError(f"{path}: the network does not take images of shape (B, 3, 299, 299)") from error
    if tried not in (None, shape):
        raise MetricError(f"{path}: the network gave {tried} for one image at first, then {shape}")
    if len(shape) != 2:
        raise MetricError(f"{path}: the network gives {shape} for one image, not (1, features)")
    return Extractor(path.name, shape[1], digest, inception.clean_resize(), network, device, inception.CLEAN_RESIZE)
