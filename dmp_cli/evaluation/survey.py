"""What a scoring would do, found out without computing a feature of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import EvalConfig, sides_of
from ..data import Subset, look_at
from ..sampling import read_record
from .array_images import holds_images
from .extract import silent
from .features import Extractor
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
    samples = dict(zip(config.samples, counts, strict=True))
    width = extractor.width or 0
    return Survey(samples, number, is_measured, tuple(config.metrics), extractor.name, width)


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
