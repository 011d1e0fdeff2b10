"""What a scoring would do, found out without computing a feature of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import EvalConfig, sides_of
from ..data import Subset, look_at
from ..errors import DataError
from ..sampling import read_record
from .array_images import holds_images
from .embedding import unreadable
from .extract import find_measurement, silent
from .features import Extractor
from .kept_features import kept_bytes
from .needs import ScoringNeed, count_scoring
from .reference import bounds_of, check_record, check_sizes, find_reference
from .samples import find_samples
from .scoring import check_first


@dataclass(frozen=True)
class Survey:
    """What would be scored, and against what."""

    samples: dict[Path, int]  # images in each folder
    reference: int | None  # its images; None: statistics of an unknown number
    is_measured: bool  # whether the reference holds statistics already
    metrics: tuple[str, ...]
    features: str  # the network
    width: int  # features of an image
    need: ScoringNeed
    kept: int  # bytes of features that are kept while scores are computed, at most

    @property
    def to_measure(self) -> int:
        """Images that go through the network."""
        return sum(self.samples.values()) + (0 if self.is_measured else self.reference or 0)


def survey_scoring(config: EvalConfig, *, device: str = "cpu") -> Survey:
    """Check all that ``evaluate`` checks before its first long computation, and a few images of the reference.

    Raises:
        DataError, MetricError: as :func:`evaluate`.
    """
    number: int | None
    config, records, extractor, counts = check_first(config, device=device)
    is_measured = config.reference.suffix == ".npz" and not holds_images(config.reference)
    if is_measured:
        known = find_reference(config, extractor, silent)
        for path, made in zip(config.samples, records, strict=True):
            check_record(config, known.provenance, path, made)
        number = known.count
    else:
        number = _look_at_images(config, [read_record(made).made.get("image_size") for made in records], extractor)
    samples, width = dict(zip(config.samples, counts, strict=True)), _width_of(config, extractor)
    classes = 0 if extractor.classify is None else extractor.classify(np.zeros((1, width), np.float32)).shape[1]
    need = count_scoring(config, width=width, samples=counts, reference=number or 0, classes=classes)
    measured = counts if is_measured else [number or 0, *counts]
    kept = kept_bytes(measured, width=width, batch_size=config.batch_size)
    return Survey(samples, number, is_measured, tuple(config.metrics), extractor.name, width, need, kept)


def _width_of(config: EvalConfig, extractor: Extractor) -> int:
    """Features of an image; where its size fixes them, of the first sample.

    Raises:
        MetricError: it cannot be read, or has too many.
    """
    if extractor.width is not None:
        return extractor.width
    how: dict[str, Any] = {"batch_size": config.batch_size, "max_pixels": config.max_pixels}
    measured = find_measurement(config.samples[0], extractor, bounds=bounds_of(config), **how)
    try:
        image, *_ = measured.images.decode(int(measured.images.indices[0]))
    except DataError as error:
        raise unreadable(measured.images, error) from error
    return int(extractor.prepare(np.asarray(image)).size)


def _look_at_images(config: EvalConfig, sizes: list[int | str | None], extractor: Extractor) -> int:
    """How many images the reference has; those that are looked at have the sizes of the samples."""
    source, indices = find_samples(config.reference, bounds=bounds_of(config))
    if config.crop != "none":
        seen = look_at(Subset(source, np.array(indices)), max_pixels=config.max_pixels).sizes
        if config.crop is not None:
            cut = sides_of(config.crop)
            seen = [(cut.width, cut.height)]
        for path, size in zip(config.samples, sizes, strict=True):
            if size is not None:
                check_sizes(config, seen, of=str(path), size=size)
    part = config.reference_part
    return len(indices) if part is None else len(range(part[0], len(indices), part[1]))
