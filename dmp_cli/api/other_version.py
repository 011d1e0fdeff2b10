"""The version of a network that guidance leads away from, for the time of one call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..latents import Codec
    from ..patching import Patch, Versions
    from .networks import Network

_NAME = "against"  # of the other version's patch, while it is attached


@contextmanager
def versions_of(network: Network, against: Patch | Backbone | str | None, codec: Codec) -> Iterator[Versions | None]:
    """``network`` and what guidance leads away from; None: nothing. A patch of it is attached within the context only.

    Raises:
        ConfigError: ``against`` is nothing of that kind, both versions are the same, or it is of another codec.
        PatchError: the patch does not fit the backbone.
    """
    if against is None:
        yield None
        return
    from ..backbones import Backbone
    from ..patching import BackboneVersions, Patch, PatchedBackbone, PatchVersions, attach, owner_on

    ours = network.denoiser
    if isinstance(against, Backbone):
        _check_pair(network.backbone, against)
        _check_codec(None if against.codec is None else against.codec.is_same(codec.record))
        yield BackboneVersions(ours, against.eval())
    elif isinstance(against, Patch):
        _check_codec(None if against.record is None else against.record.codec.is_same(codec.record))
        patched = attach(ours, against, name=_NAME)
        try:
            yield PatchVersions(patched, theirs=(_NAME,))
        finally:
            patched.detach(_NAME)
    elif against == "base":
        owner = ours if isinstance(ours, PatchedBackbone) else owner_on(network.backbone)
        if network.patch is None or owner is None:
            raise ConfigError('against="base": this is the backbone itself', hint="Give a patched backbone.")
        yield PatchVersions(owner, theirs=())
    else:
        raise ConfigError(f'against={against!r}: give a patch, another backbone, or "base"')


def _check_pair(ours: Backbone, other: Backbone) -> None:
    from ..patching import check_alike, refuse_text

    if other is ours:
        raise ConfigError("against: it is the backbone that is drawn from")
    refuse_text(ours, named="against")
    check_alike(ours, other, named="against")


def _check_codec(is_same: bool | None) -> None:
    """``is_same``: whether it has the codec that is drawn with; None: it says nothing of a codec."""
    if is_same is False:
        raise ConfigError("against: it works in the space of another codec")
