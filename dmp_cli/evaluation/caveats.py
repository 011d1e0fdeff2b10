"""Warnings of an evaluation: why a score may be biased, has no spread, or does not compare with others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..config import EvalConfig
from .few_images import Counted, together, warn_of_few
from .led_away import scale_of
from .metrics import title_of
from .spreads import Scored
from .statistics import Statistics


def find_caveats(
    config: EvalConfig, scored: Sequence[Scored], reference: Statistics, *, features: str
) -> tuple[str, ...]:
    """All warnings, without repetition: on the reference, on the spreads, on few images, then on each folder.

    ``features`` is the name of the network, which names the distance.
    """
    title = title_of("fid", features)
    found = [*_about_reference(config, reference, title), *_about_spreads(config)]
    if len({one.provenance.count for one in scored}) > 1 and "fid" in config.metrics:
        found.append(
            f"the folders hold different numbers of images, and {title} falls as the number grows: "
            "compare folders of equal size only"
        )
    if "prc" in config.metrics and config.bootstrap not in (0, 1) and not config.repeats:
        found.append(
            "recall has no spread by resampling, as an image drawn twice is its own neighbour; --repeats gives a spread"
        )
    if "fid" in config.metrics:
        counted = [_counted(one, config.repeats) for one in scored]
        found += warn_of_few(counted, width=reference.width, title=title)
    told = ((str(one.samples), text) for one in scored for text in _about_folder(config, one, reference, features))
    found += together(told, of=len(scored))
    return tuple(dict.fromkeys(found))


def _counted(scored: Scored, repeats: int) -> Counted:
    count, score = scored.provenance.count or 0, scored.scores["fid"]
    bias = None if score.influence is None else score.influence.bias
    return Counted(str(scored.samples), count, count // (repeats or 1), float(score.values[0]), bias)


def _about_reference(config: EvalConfig, reference: Statistics, title: str) -> Iterator[str]:
    if reference.provenance.digest is None:
        yield (
            f"{config.reference} does not say how it was made (provenance unknown: network, resizing, count); "
            "its scores compare only with others against the same file"
        )
    elif "fid" in config.metrics:
        yield from _too_few(config.reference, reference.count, reference.width, title)


def _about_spreads(config: EvalConfig) -> Iterator[str]:
    if config.bootstrap == 1 and not config.repeats:
        yield "one resample gives no spread; give --bootstrap 0, or 2 or more"
    if config.repeats == 1:
        yield "one part gives no spread; give --repeats 2 or more"


def _about_folder(config: EvalConfig, scored: Scored, reference: Statistics, features: str) -> Iterator[str]:
    """What is said of one folder, without its name."""
    if "fid" in config.metrics and config.repeats and (rest := (scored.provenance.count or 0) % config.repeats):
        yield f"the last {rest} images are in none of the {config.repeats} parts"
    size = scored.scores["kid"].subset_size if "kid" in scored.scores else None
    if size is not None and size < config.kid_subset_size:
        title = title_of("kid", features)
        yield f"{title} uses subsets of {size} images, not {config.kid_subset_size}, as there are no more"
    if scale_of(scored.made) is not None and "fid" in config.metrics and "prc" not in config.metrics:
        yield (
            "led away from another version of its network, and a distance alone rewards a scale that loses variety: "
            "look at precision and recall too (--metrics fid,prc, with the extra metrics)"
        )
    jpegs = scored.provenance.jpegs
    if jpegs and reference.provenance.jpegs == 0:
        yield (
            f"{jpegs:,} images are JPEG files and none of the reference is, so that the losses of JPEG count in the "
            "score"
        )
    sizes, wanted = scored.provenance.image_sizes, reference.provenance.image_sizes
    if wanted and not set(sizes) & set(wanted):
        yield "no image has the same size in pixels as any reference image"


def _too_few(path: Path, count: int | None, width: int, title: str) -> Iterator[str]:
    if count is not None and count <= width:
        yield f"{path}: {count} images for {width} features: the covariance is singular, so {title} is biased"
