"""What a function of this wing was given: the network to call, the backbone in it, and its codec."""

from __future__ import annotations

import warnings
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ConfigError, in_python

if TYPE_CHECKING:
    from torch import nn

    from ..backbones import Backbone
    from ..latents import Codec
    from ..patching import Patch

# The codec of a backbone that was asked for last, with what it was asked for by, so that drawing again does not read
# a VAE again.
_codecs: weakref.WeakKeyDictionary[Any, tuple[Any, Codec]] = weakref.WeakKeyDictionary()


class Network(NamedTuple):
    """A network that can be called, and the parts of it."""

    denoiser: nn.Module  # the patched backbone, or the bare one
    backbone: Backbone
    patch: Patch | None  # the first one that is attached; None: there is none


def network_of(model: nn.Module) -> Network:
    """``model`` as a network: a patched backbone, or one that ``load_backbone`` gave.

    Raises:
        ConfigError: it is neither.
    """
    from ..backbones import Backbone
    from ..patching import PatchedBackbone, owner_on

    if isinstance(model, PatchedBackbone):
        return Network(model, model.backbone, model.patch if model.patches else None)
    if isinstance(model, Backbone):
        owner = owner_on(model)
        return Network(model, model, None if owner is None else owner.patch)
    raise ConfigError(
        f"a {type(model).__name__} is no backbone of dmp_cli",
        hint="Load one with load_backbone(name), or give what attach(...) returns.",
    )


def warn_of_other_text(network: Network) -> None:
    """Warn where captions are encoded otherwise than when the patch was trained, as one may have asked for."""
    from ..backbones import check_same_text

    record, backbone = None if network.patch is None else network.patch.record, network.backbone
    if record is None or record.text is None or not backbone.takes_text:
        return
    try:
        check_same_text(record.text, backbone.captions.encoder.record)
    except ConfigError as error:
        warnings.warn(in_python(error.message), stacklevel=2)


def codec_of(
    network: Network, *, vae: str | None = None, image_size: int | str | None = None, download: bool = False
) -> Codec:
    """The codec of a network, which is set to the size of the images: as asked for, or as its patch was made for.

    Raises:
        ConfigError: another codec than that of the patch, or a size that does not fit.
        CheckpointError: the codec's weights are not here.
    """
    from ..latents import check_vae_place, load_codec, set_image_size

    record = None if network.patch is None else network.patch.record
    backbone = network.backbone
    asked = (vae, None if record is None else record.codec.model_dump_json(), backbone.device)
    known = _codecs.get(backbone)
    if known is None or known[0] != asked:
        check_vae_place(vae)
        how: dict[str, Any] = {"record": None if record is None else record.codec, "download": download}
        known = asked, load_codec(vae, backbone, **how)
        _codecs[backbone] = known
    set_image_size(image_size or (None if record is None else record.image_size), backbone, known[1])
    return known[1]
