"""What of a scoring can be refused before there are samples, for commands that draw them first, which takes hours."""

from __future__ import annotations

import numpy as np

from ..config import EvalConfig, sides_of
from ..data import look_at
from ..errors import MetricError
from .features import load_extractor
from .led_away import LEAST, would_add
from .metrics import check
from .reference import bounds_of, check_sizes
from .samples import find_samples


def check_scoring(config: EvalConfig, *, image_size: int | str, parts: int | None, device: str = "cpu") -> None:
    """Check features, metrics and the reference's images for samples of ``image_size`` pixels that are yet to be drawn.

    ``parts`` is how many parts of the reference there are, of which each is scored against; None: it is not there yet.
    Only a few of its images are read.

    Raises:
        DataError: the reference holds no images.
        MetricError: the features cannot be computed, or the reference does not fit.
    """
    given = {"inception_weights": config.inception_weights, "feature_weights": config.feature_weights}
    extractor = load_extractor(config.features, **given, device=device)
    for metric in config.metrics:
        check(metric, extractor)
    extractor.prepare(np.zeros((*sides_of(image_size), 3), np.uint8))
    if parts is None:
        return
    source, indices = find_samples(config.reference, bounds=bounds_of(config))
    is_added = "metrics" not in config.model_fields_set and would_add(config.metrics)
    least = LEAST["prc" if is_added or "prc" in config.metrics else "fid"]
    if len(indices) // parts < least:
        raise MetricError(
            f"{config.reference} holds {len(indices)} images: its parts, of which there are {parts}, need {least} each",
            hint="Give more images, thousands for a score that means something.",
        )
    seen = look_at(source, max_pixels=config.max_pixels).sizes
    if config.crop not in (None, "none"):
        cut = sides_of(config.crop)
        seen = [(cut.width, cut.height)]
    if config.crop != "none" or extractor.width is None:
        check_sizes(config, seen, of="the samples", size=image_size)
