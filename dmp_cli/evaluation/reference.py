"""What samples are scored against: measured or read from a file, and held against the samples' own record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import EvalConfig
from ..errors import MetricError
from ..sampling import read_record
from .extract import Log, View, measure
from .features import Extractor
from .metrics import needs_features
from .statistics import Provenance, Statistics, load_statistics, save_statistics


def find_reference(config: EvalConfig, extractor: Extractor, log: Log) -> Statistics:
    """The statistics of ``config.reference``: read, or measured and perhaps kept.

    Raises:
        MetricError: statistics of another network, or without what a metric needs; options that do not go with a file.
    """
    path = config.reference
    if path.suffix == ".npz":
        _refuse_options(config)
        reference = load_statistics(path)
        _check_network(reference, extractor, path)
    else:
        log(f"{path}: measuring the reference")
        reference = measure(path, extractor, batch_size=config.batch_size, view=_view(config, extractor), log=log)
        if config.save_stats is not None:
            save_statistics(config.save_stats, reference)
    for metric in config.metrics:
        if needs_features(metric) and reference.features is None:
            raise MetricError(
                f"{path}: holds no features, and {metric} needs them", hint="Score fid alone, or give the images."
            )
    return reference


def check_width(reference: Statistics, width: int, *, path: Path, of: str) -> None:
    """Raise MetricError where features of ``width`` cannot be held against the reference."""
    if reference.width != width:
        raise MetricError(f"{path}: statistics of {reference.width} features, and {of} has {width}")


def check_record(config: EvalConfig, reference: Provenance, samples: Path, made: dict[str, Any] | None) -> None:
    """Hold the reference against what a folder's samples.json says of its images.

    Raises:
        MetricError: images of another size, which another resize would have brought to the network's, or images that
            went through another VAE.
    """
    record = read_record(made).made
    size, codec = record.get("image_size"), dict(record.get("codec") or {}).get("digest")
    if reference.codec is not None and codec is not None and reference.codec != codec:
        raise MetricError(
            f"{config.reference}: its images went through the VAE {reference.codec[:12]}, those of {samples} come from "
            f"{codec[:12]}",
            hint="Give the samples' VAE with --reference-vae, or leave it out.",
        )
    other = [f"{width}x{height}" for width, height in reference.image_sizes if (width, height) != (size, size)]
    if config.crop != "none" and isinstance(size, int) and other:
        raise MetricError(
            f"{config.reference} holds images of {', '.join(other[:3])} pixels, {samples} of {size}x{size}: another "
            "resize would move the score",
            hint=f"Cut them as training does with --crop {size}, or take them as they are with --crop none."
            if config.reference.suffix != ".npz"
            else f"Measure the images again with --crop {size}, or take the file as it is with --crop none.",
        )


def _view(config: EvalConfig, extractor: Extractor) -> View:
    crop = config.crop if isinstance(config.crop, int) else None
    if config.reference_vae is None:
        return View(crop)
    from ..latents import load_vae

    vae = load_vae(config.reference_vae, device=extractor.device)
    if vae.image_channels != 3:
        raise MetricError(
            f"--reference-vae {config.reference_vae} is for images of {vae.image_channels} channels, not 3"
        )
    return View(crop, vae)


def _refuse_options(config: EvalConfig) -> None:
    path = config.reference
    if config.save_stats is not None:
        raise MetricError(f"{path}: statistics already, so there is nothing to save at {config.save_stats}")
    if isinstance(config.crop, int) or config.reference_vae is not None:
        raise MetricError(f"{path}: statistics already; --crop and --reference-vae are for images")


def _check_network(reference: Statistics, extractor: Extractor, path: Path) -> None:
    known = reference.provenance
    if known.digest not in (None, extractor.digest):
        raise MetricError(
            f"{path}: statistics in features {known.features} ({known.digest}), "
            f"and scores are asked for in {extractor.name} ({extractor.digest})",
            hint="Measure the reference again, or score with its features.",
        )
    if extractor.width is not None:
        check_width(reference, extractor.width, path=path, of=f"features {extractor.name}")
