"""The captions of a training run, encoded before its backbone needs the memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...config import Prompt, describe_changes
from ...errors import ConfigError
from ..console import Printer
from ..texts import Captions

if TYPE_CHECKING:
    import torch

    from ...backbones import Backbone
    from ...config import TrainConfig
    from ...data import ImageSource
    from ...runtime import World
    from .job import Request


def encode_early(
    request: Request,
    images: ImageSource,
    peeked: Backbone | None,
    *,
    world: World,
    device: torch.device,
    printer: Printer,
) -> Captions:
    """Encode the captions before the weights of the backbone are read, where a text store is to keep them.

    A run that is continued goes on as it began. Raises as :meth:`Captions.encode_early`.
    """
    before = request.run.read_settings() if request.options.resume else None
    if before is not None:
        _check_same(request, before.get("text_store"))
    earlier: dict[str, Any] = {} if before is None else {"earlier": before.get("text_store")}
    captions = Captions(request.texts, by_default=True, world=world, device=device, printer=printer, **earlier)
    captions.encode_early(request.network, peeked, every_caption(images, request.config))
    return captions


def _check_same(request: Request, before: str | None) -> None:
    """Raise ConfigError now, not after hours of encoding, where another store is asked for than the run has."""
    asked = request.texts.asked
    wanted = request.texts.text_dtype or before or "bf16" if asked else None
    if asked is not None and wanted != before:
        changed = describe_changes({"text_store": before}, {"text_store": wanted})
        raise ConfigError(
            f"{request.run.path} holds a run with other settings: {changed}; these options cannot continue it",
            hint="Leave these options out to continue the run, or start a new run with another -o.",
        )


def every_caption(images: ImageSource, config: TrainConfig) -> Iterator[str]:
    """All captions that a run may show to the backbone: those of its images, and of images that are held out."""
    from ...data import Bounds, find_images

    yield from images.every_caption()
    if config.val_data is not None:
        bounds = Bounds(config.max_file_size, config.follow_links)
        yield from find_images(config.val_data, class_names=config.class_names, bounds=bounds).every_caption()


def first_captions(images: ImageSource) -> tuple[Prompt, ...]:
    """The captions of the first 16 images, as prompts of the sample grids."""
    return tuple(Prompt(text=images.caption(index)) for index in range(min(16, len(images))))
