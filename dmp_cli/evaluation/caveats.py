"""Warnings of an evaluation: why a score may be biased, has no spread, or does not compare with others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..config import EvalConfig
from .led_away import scale_of
from .spreads import Scored
from .statistics import Statistics

_LARGE_BIAS = 0.1  # the part of a FID that is worth a warning


def find_caveats(config: EvalConfig, scored: Sequence[Scored], reference: Statistics) -> tuple[str, ...]:
    """All warnings, without repetition: on the reference, on the spreads, then on each folder."""
    found = [*_about_reference(config, reference), *_about_spreads(config)]
    if len({one.provenance.count for one in scored}) > 1 and "fid" in config.metrics:
        found.append(
            "the folders hold different numbers of images, and FID falls as the number grows: "
            "compare folders of equal size only"
        )
    if "prc" in config.metrics and config.bootstrap not in (0, 1) and not config.repeats:
        found.append(
            "recall has no spread by resampling, as an image drawn twice is its own neighbour; --repeats gives a spread"
        )
    for one in scored:
        found += _about_folder(config, one, reference)
    return tuple(dict.fromkeys(found))


def _about_reference(config: EvalConfig, reference: Statistics) -> Iterator[str]:
    if reference.provenance.digest is None:
        yield (
            f"{config.reference} does not say how it was made (provenance unknown: network, resizing, count); "
            "its scores compare only with others against the same file"
        )
    elif "fid" in config.metrics:
        yield from _too_few(config.reference, reference.count, reference.width)


def _about_spreads(config: EvalConfig) -> Iterator[str]:
    if config.bootstrap == 1 and not config.repeats:
        yield "one resample gives no spread; give --bootstrap 0, or 2 or more"
    if config.repeats == 1:
        yield "one part gives no spread; give --repeats 2 or more"


def _about_folder(config: EvalConfig, scored: Scored, reference: Statistics) -> Iterator[str]:
    if "fid" in config.metrics:
        count = scored.provenance.count or 0
        yield from _too_few(scored.samples, count // (config.repeats or 1), reference.width)
        yield from _about_bias(scored, count, reference.width)
        if config.repeats and (rest := count % config.repeats):
            yield f"{scored.samples}: the last {rest} images are in none of the {config.repeats} parts"
    size = scored.scores["kid"].subset_size if "kid" in scored.scores else None
    if size is not None and size < config.kid_subset_size:
        yield (
            f"{scored.samples}: KID uses subsets of {size} images, not {config.kid_subset_size}, as there are no more"
        )
    if scale_of(scored.made) is not None and "fid" in config.metrics and "prc" not in config.metrics:
        yield (
            f"{scored.samples} was led away from another version of its network, and a distance alone rewards a scale "
            "that loses variety: look at precision and recall too (--metrics fid,prc, with the extra metrics)"
        )
    jpegs = scored.provenance.jpegs
    if jpegs and reference.provenance.jpegs == 0:
        yield (
            f"{scored.samples}: {jpegs:,} images are JPEG files and none of the reference is, so that the losses of "
            "JPEG count in the score"
        )
    sizes, wanted = scored.provenance.image_sizes, reference.provenance.image_sizes
    if wanted and not set(sizes) & set(wanted):
        yield f"{scored.samples}: no image has the same size in pixels as any reference image"


def _about_bias(scored: Scored, count: int, width: int) -> Iterator[str]:
    score = scored.scores["fid"]
    if score.influence is None or score.influence.bias is None:
        return
    bias, value = score.influence.bias, float(score.values[0])
    if bias > _LARGE_BIAS * value:
        about = "at least" if count <= width else "about"  # with a singular covariance part of it is not seen
        yield (
            f"{scored.samples}: {about} {bias:.2g} of its FID of {value:.4g} is due to its having {count:,} images "
            "only: FID falls as the number grows"
        )


def _too_few(path: Path, count: int | None, width: int) -> Iterator[str]:
    if count is not None and count <= width:
        yield f"{path}: {count} images for {width} features: the covariance is singular, so FID is biased"
