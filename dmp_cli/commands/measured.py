"""What ``dmp eval --loss`` measures: a bare backbone, what was learnt for it, and held-out images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import EvalConfig, LossOptions, NetworkOptions, default_of
from ..errors import PatchError
from .options import Given

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..data import ImageSource
    from ..patching import PatchedBackbone
    from ..pipeline import Loaded


def load_measured(given: Given, device: str) -> Loaded:
    """The bare backbone: that of the first patch, or the one that is named."""
    from ..pipeline import load_bare, load_patched

    options, network = given.make(LossOptions), given.make(NetworkOptions)
    if not options.patch:
        return load_bare(network, device)
    loaded = load_patched(options.patch[0], network, device, force=options.force_backbone)
    loaded.denoiser.detach()  # type: ignore[operator]
    return loaded


def check_measured(given: Given, loaded: Loaded) -> None:
    """Raise the error with which a patch or adapter cannot be put on the backbone."""
    options = given.make(LossOptions)
    for path in options.patch:
        with with_patch(path, loaded, given):
            pass
    for path in options.adapter:
        with_adapter(path, loaded)


def find_held_out(given: Given, loaded: Loaded) -> ImageSource:
    """The images of --val-data. Raises DataError where they do not go with the backbone."""
    from ..data import Bounds, find_images
    from ..training import check_conditions

    options = given.make(LossOptions)
    assert options.val_data is not None
    images = find_images(options.val_data, bounds=Bounds(said(given, "max_file_size"), said(given, "follow_links")))
    check_conditions(images, loaded.backbone)
    return images


def said(given: Given, name: str) -> Any:
    """An option of scoring that applies here too."""
    return given.values.get(name, default_of(EvalConfig, name))


@contextlib.contextmanager
def with_patch(path: Path, loaded: Loaded, given: Given) -> Iterator[PatchedBackbone]:
    """Context in which a patch is on the backbone. Raises PatchError for a patch of another backbone or codec."""
    from ..patching import attach, load_patch

    patch, force = load_patch(path), given.make(LossOptions).force_backbone
    assert patch.record is not None
    if not force and not patch.record.codec.is_same(loaded.codec.record):
        raise PatchError(f"{path} was trained with another codec than {given.make(LossOptions).patch[0]}")
    patched = attach(loaded.backbone, patch, force=force).to(loaded.backbone.device).eval()
    try:
        yield patched
    finally:
        patched.detach()


def with_adapter(path: Path, loaded: Loaded) -> Backbone:
    """The backbone with one adapter, in a module of its own.

    Raises:
        CheckpointError, ConfigError: the adapter is of another backbone or codec.
    """
    from ..patching import load_any_adapter, share_weights
    from ..pipeline import check_codec_of

    check_codec_of(path, loaded)
    adapted = share_weights(loaded.backbone)
    load_any_adapter(path, adapted)
    return adapted
