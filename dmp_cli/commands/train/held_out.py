"""The held-out images of a training run: which they are, and that they are none that is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...errors import DataError
from .images import images_of

if TYPE_CHECKING:
    from ...config import TrainConfig
    from ...data import ImageSource, Reader
    from ...runtime import World
    from ...training import Trainee


class Parts(NamedTuple):
    """The images of a run in two parts, and what reads the values of each; no reader: images are encoded live."""

    training: ImageSource
    reader: Reader | None
    held_out: tuple[ImageSource, Reader] | None


def divide(images: ImageSource, reader: Reader | None, trainee: Trainee, config: TrainConfig, world: World) -> Parts:
    """Divide the images of a run as the options say. ``reader`` reads the values of all ``images``, if there is one.

    Raises:
        DataError: the held-out images have other classes or no captions, one cannot be read, some of them are trained
            on too, or the split leaves nothing of a class.
    """
    if not config.holds_out:
        return Parts(images, reader, None)
    from ...data import LiveReader, Subset, SubsetReader, hold_out, refuse_shared
    from ...training import check_conditions, chosen_images

    if config.val_data is None:
        kept, held = hold_out(images, config.val_split)
        training, held_out = Subset(images, kept), Subset(images, held)
        parts = [None if reader is None else SubsetReader(reader, indices) for indices in (kept, held)]
        found = Parts(training, parts[0], (held_out, parts[1] or _live(held_out, trainee, config)))
    else:
        other = images_of(config, config.val_data, world=world)
        check_conditions(other, trainee.backbone)
        if trainee.backbone.num_classes > 1 and other.classes != images.classes:
            raise DataError(f"--val-data {config.val_data} has other classes than {images.path}")
        found = Parts(images, reader, (other, _live(other, trainee, config)))
    found = _one_part(found, trainee, config)
    assert found.held_out is not None
    seed = config.val_seed
    chosen = sorted(set(chosen_images(len(found.held_out[0]), config.val_draws, seed=seed).tolist()))
    refuse_shared(found.held_out[0], found.training, which=chosen)
    if isinstance(found.held_out[1], LiveReader):  # a store may not be filled yet; it names what it cannot read
        for index in chosen:
            found.held_out[1].read(index, mirrored=False)
    return found


def _one_part(whole: Parts, trainee: Trainee, config: TrainConfig) -> Parts:
    """The same with the asked part of the held-out images: part K has image K and every N-th after it."""
    if config.val_part is None:
        return whole
    import numpy as np

    from ...data import LiveReader, Subset, SubsetReader

    assert whole.held_out is not None
    (images, reader), (part, parts) = whole.held_out, config.val_part
    if part >= len(images):
        raise DataError(f"--val-part {part + 1}/{parts}: there are {len(images)} held-out images only")
    indices = np.arange(part, len(images), parts)
    subset = Subset(images, indices)
    if isinstance(reader, LiveReader):
        return whole._replace(held_out=(subset, _live(subset, trainee, config)))
    return whole._replace(held_out=(subset, SubsetReader(reader, indices)))


def _live(images: ImageSource, trainee: Trainee, config: TrainConfig) -> Reader:
    from ...data import LiveReader
    from ...latents import image_size

    side, channels = image_size(trainee.codec, trainee.backbone), trainee.codec.image_channels
    return LiveReader(images, image_size=side, channels=channels, max_pixels=config.max_pixels)
