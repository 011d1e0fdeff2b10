"""Training on images of several shapes: their buckets, and what reads each image at the size of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import ConfigError
from .latent_store import as_store, wants_store

if TYPE_CHECKING:
    from ...config import TrainConfig
    from ...data import BucketReader, BucketRule, Buckets, ImageSource
    from ...latents import LatentStore
    from ...runtime import World
    from ...training import Trainee

_STEP = 64  # pixels, where nothing else is said


class Shapes(NamedTuple):
    """The buckets of a run."""

    reader: BucketReader
    stores: list[tuple[LatentStore, ImageSource]]  # of each bucket, with its images; empty: images are encoded live
    counts: dict[str, int]  # how many images there are of each size
    remarks: tuple[str, ...]  # for people


def find_shapes(images: ImageSource, trainee: Trainee, config: TrainConfig, world: World) -> Shapes | None:
    """The buckets of the images that are trained on; None: all are shown at one size.

    Raises:
        ConfigError: the backbone makes squares only, or the options of buckets do not fit it.
        DMPError: as :func:`~.latent_store.find_store`.
    """
    if not config.buckets:
        return None
    from ...data import fill_buckets, find_pictures

    rule = _rule(trainee, config)
    pictures = world.tell(lambda: find_pictures(images, max_pixels=config.max_pixels))
    buckets, merged = fill_buckets(pictures, rule, batch_size=config.batch_size)
    told = ", ".join(f"{count:,} of {size}" for size, count in buckets.counts().items())
    remarks = [f"buckets: {told}"]
    if merged:
        remarks.append(f"buckets with fewer images than a batch are given up: {', '.join(merged)}")
    return _read(images, buckets, trainee, config, tuple(remarks))


def _read(
    images: ImageSource, buckets: Buckets, trainee: Trainee, config: TrainConfig, remarks: tuple[str, ...]
) -> Shapes:
    """What reads each image: a latent store for each bucket, or its files."""
    from ...data import BucketReader, LiveReader, Reader, Subset, fits_in_memory
    from ...latents import describe_store, image_size

    codec, backbone, folder = trainee.codec, trainee.backbone, config.store_dir
    parts: list[ImageSource] = [Subset(images, members) for members in buckets.members]
    readers: list[Reader] = []
    stores: list[tuple[LatentStore, ImageSource]] = []
    if not wants_store(images, trainee, config):
        size = image_size(codec, backbone)
        keeps = fits_in_memory(images, image_size=size, channels=codec.image_channels)
        for part, sides in zip(parts, buckets.sizes, strict=True):
            how: dict[str, Any] = {"image_size": sides.written, "channels": codec.image_channels}
            readers.append(LiveReader(part, keeps=keeps, max_pixels=config.max_pixels, **how))
        live = BucketReader(buckets, readers, random_crop=config.random_crop)
        return Shapes(live, [], buckets.counts(), remarks)
    if folder is not None and (folder / "manifest.json").exists():
        raise ConfigError(
            f"{folder} is a latent store of one size, and --buckets has several",
            hint="Give another folder with --store-dir.",
        )
    for number, (part, sides) in enumerate(zip(parts, buckets.sizes, strict=True)):
        about: dict[str, Any] = {"size": sides.written, "members": buckets.digest(number)}
        record = describe_store(part, codec, backbone, flip=config.flip, **about)
        stores.append((as_store(record, folder and folder / sides.in_words), part))
    return Shapes(BucketReader(buckets, [store for store, _ in stores]), stores, buckets.counts(), remarks)


def _rule(trainee: Trainee, config: TrainConfig) -> BucketRule:
    """Which sizes there are. Raises ConfigError where the options do not fit the backbone or each other."""
    from ...config import sides_of
    from ...data import BucketRule
    from ...latents import image_size

    codec, backbone = trainee.codec, trainee.backbone
    if not backbone.any_size:
        raise ConfigError(f"--buckets: a backbone of the family {backbone.family} makes square images of one size only")
    size, multiple = sides_of(image_size(codec, backbone)), codec.factor * backbone.side_multiple
    step = config.bucket_step or -(-_STEP // multiple) * multiple
    if step % multiple:
        raise ConfigError(
            f"--bucket-step {step}: the codec and the backbone need a multiple of {multiple} pixels",
            hint=f"Give {-(-step // multiple) * multiple}.",
        )
    square = math.isqrt(size.height * size.width) // step * step
    if not square:
        raise ConfigError(
            f"--buckets: images of {size.in_words} pixels are smaller than a step of {step}",
            hint=f"Give a smaller --bucket-step, a multiple of {multiple}, or a larger --image-size.",
        )
    largest = backbone.largest_side and backbone.largest_side * codec.factor
    most = min(side for side in (config.bucket_max or 2 * square, largest) if side is not None)
    least = config.bucket_min or max(step, square // 2)
    if not least <= square <= most:
        raise ConfigError(
            f"--bucket-min {least} and --bucket-max {most} leave out squares of {square} pixels, as large as "
            "--image-size says",
            hint="Give a smaller --bucket-min or a larger --bucket-max.",
        )
    return BucketRule(size, step, least, most, config.upscale)
