"""The reference that samples are scored against: measures or reads it, and checks that it fits the samples."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..config import EvalConfig, sides_of
from ..data import Bounds, find_images
from ..errors import MetricError
from ..sampling import read_record
from ..storage import what_is
from .array_images import holds_images
from .embedding import Preprocessing
from .extract import Log, Measurement, find_measurement
from .features import Extractor
from .metrics import needs_features
from .statistics import Provenance, Statistics, load_statistics, save_statistics


def to_measure(config: EvalConfig, extractor: Extractor) -> Measurement | None:
    """What is to be measured of ``config.reference``; None: it holds statistics."""
    path = config.reference
    if path.suffix == ".npz" and not holds_images(path):
        return None
    changes = _load_preprocessing(config, extractor)
    how = {"batch_size": config.batch_size, "max_pixels": config.max_pixels}
    return find_measurement(
        path, extractor, changes=changes, part=config.reference_part, bounds=bounds_of(config), **how
    )


def find_reference(
    config: EvalConfig,
    extractor: Extractor,
    log: Log,
    *,
    measured: Measurement | None = None,
    folder: Path | None = None,
) -> Statistics:
    """Read the statistics of ``config.reference``, or measure them and save them if asked to.

    ``measured``: what :func:`to_measure` gave, where that is known; ``folder``: where features are kept.

    Raises:
        MetricError: the statistics are of another network or lack what a metric needs, or an option applies only to
            images and the reference is a file.
    """
    path = config.reference
    measured = measured or to_measure(config, extractor)
    if measured is None:
        _refuse_options(config)
        reference = load_statistics(path)
        _check_network(reference, extractor, path)
    else:
        log(f"{path}: measuring the reference")
        reference = measured.statistics(folder, log)
        if config.save_stats is not None:
            save_statistics(config.save_stats, reference)
    for metric in config.metrics:
        if needs_features(metric) and reference.features is None:
            raise MetricError(
                f"{path} holds no features, but {metric} needs them",
                hint="Score fid alone, or give the images instead of this file.",
            )
    return reference


def has_features(reference: Path) -> bool:
    """Whether a reference gives the features that some metrics need: images do, and so do statistics that have them."""
    if reference.suffix != ".npz" or not reference.exists() or holds_images(reference):
        return True
    return load_statistics(reference).features is not None


def bounds_of(config: EvalConfig) -> Bounds:
    """What may be read of the images."""
    return Bounds(config.max_file_size, config.follow_links)


def check_there(config: EvalConfig) -> None:
    """Raise MetricError or DataError if the reference is not there, before networks are looked for."""
    path = config.reference
    if (kind := what_is(path)) is not None and not path.is_dir():
        raise MetricError(f"{path} is {kind}, not a file", hint="Give a folder or a zip of images, or an .npz.")
    if path.suffix == ".npz":
        if not path.exists():
            raise MetricError(f"{path} does not exist", hint="Give images, or statistics that --save-stats wrote.")
    elif not path.exists():
        find_images(path, bounds=bounds_of(config))  # says what is wrong, or finds the shards of a pattern


def check_width(reference: Statistics, width: int, *, path: Path, of: str) -> None:
    """Raise MetricError if the reference has another number of features than ``width``."""
    if reference.width != width:
        raise MetricError(f"{path} holds statistics of {reference.width} features, but {of} has {width}")


def check_record(config: EvalConfig, reference: Provenance, samples: Path, made: dict[str, Any] | None) -> None:
    """Compare the reference with what the samples.json of a folder says about its images.

    Raises:
        MetricError: the images of the reference have another size, so that the network would resize them differently,
            or went through another VAE.
    """
    record = read_record(made).made
    size, codec = record.get("image_size"), dict(record.get("codec") or {}).get("digest")
    if reference.codec is not None and codec is not None and reference.codec != codec:
        raise MetricError(
            f"the images of {config.reference} went through the VAE {reference.codec[:12]}, but those of {samples} "
            f"come from {codec[:12]}",
            hint="Give the VAE of the samples with --reference-vae, or leave that option out.",
        )
    if config.crop != "none" and size is not None:
        check_sizes(config, reference.image_sizes, of=str(samples), size=size)


def check_sizes(config: EvalConfig, sizes: Iterable[tuple[int, int]], *, of: str, size: int | str) -> None:
    """Raise MetricError if some ``sizes`` of the reference are not those of ``size``, as those ``of`` are."""
    sides = sides_of(size)
    other = [f"{width}x{height}" for width, height in dict.fromkeys(sizes) if (height, width) != sides]
    if other:
        raise MetricError(
            f"{config.reference} holds images of {', '.join(other[:3])} pixels, but {of} of {sides.in_words}: "
            "resizing them differently would change the score",
            hint=f"Crop them as training does with --crop {size}, or use them as they are with --crop none."
            if config.reference.suffix != ".npz"
            else f"Measure the images again with --crop {size}, or use the file as it is with --crop none.",
        )


def _load_preprocessing(config: EvalConfig, extractor: Extractor) -> Preprocessing:
    crop = None if config.crop == "none" else config.crop
    if config.reference_vae is None:
        return Preprocessing(crop)
    from ..latents import load_vae

    vae = load_vae(config.reference_vae, device=extractor.device)
    if vae.image_channels != 3:
        raise MetricError(
            f"--reference-vae {config.reference_vae} is for images of {vae.image_channels} channels, not 3"
        )
    return Preprocessing(crop, vae)


def _refuse_options(config: EvalConfig) -> None:
    path = config.reference
    if config.save_stats is not None:
        raise MetricError(f"{path} already holds statistics, so there is nothing to save at {config.save_stats}")
    if config.reference_part is not None:
        raise MetricError(f"{path} holds statistics of all its images, so that --reference-part cannot take some")
    if config.crop not in (None, "none") or config.reference_vae is not None:
        raise MetricError(f"{path} already holds statistics; --crop and --reference-vae apply only to images")


def _check_network(reference: Statistics, extractor: Extractor, path: Path) -> None:
    known = reference.provenance
    if known.digest not in (None, extractor.digest):
        raise MetricError(
            f"{path} holds statistics in features {known.features} ({known.digest}), "
            f"but scores are asked for in {extractor.name} ({extractor.digest})",
            hint="Measure the reference again, or score in its features with --features.",
        )
    if extractor.width is not None:
        check_width(reference, extractor.width, path=path, of=f"features {extractor.name}")
