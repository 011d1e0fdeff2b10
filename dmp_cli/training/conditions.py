"""Whether a data set gives the conditions, classes or captions, that a backbone reads."""

from __future__ import annotations

from ..backbones import Backbone, find_shares
from ..config import TrainConfig
from ..data import ImageSource
from ..errors import ConfigError, DataError


def check_conditions(images: ImageSource, backbone: Backbone) -> None:
    """Raise DataError if the backbone reads classes or captions and the data do not have them."""
    check_captions(images, backbone)
    if backbone.num_classes > 1 and len(images.classes) != backbone.num_classes:
        found = f"{len(images.classes)} classes" if images.classes else "no class folders"
        raise DataError(
            f"the backbone knows {backbone.num_classes} classes, the data has {found}",
            hint="Give a folder with one sub-folder per class, in the order of the class indices.",
        )


def check_captions(images: ImageSource, backbone: Backbone) -> None:
    """Raise DataError if the backbone reads text and some image has no caption."""
    if backbone.takes_text and not images.has_captions:
        missing = images.missing_captions()
        raise DataError(
            f"this backbone reads text, and {len(missing)} or more images have no caption, such as {missing[0]}",
            hint='Put captions in metadata.jsonl, one line {"file_name": ..., "text": ...} per image, or in NAME.txt.',
        )


def withhold_captions(config: TrainConfig, backbone: Backbone) -> None:
    """Let the captions of ``backbone`` know which part each encoder gives that ``config`` withholds some from.

    Raises:
        ConfigError: the backbone reads no text, or has no such encoders.
        CheckpointError: a config of an encoder does not tell its width.
    """
    if config.encoder_dropout is None:
        return
    if not backbone.takes_text:
        raise ConfigError("--encoder-dropout is for a backbone that reads text")
    encoder = backbone.captions.encoder
    backbone.captions.shares = find_shares(
        backbone.text_folder, encoder.record.kind, names=list(config.encoder_dropout), length=encoder.asked_length
    )
