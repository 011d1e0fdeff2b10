"""The version of a network that guidance leads away from, for the time of one call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..config import describe_changes
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..patching import Patch, Versions
    from .networks import Network

_NAME = "against"  # of the other version's patch, while it is attached
_SHARED = ("family", "sample_shape", "num_classes", "learns_sigma")  # what two backbones must have in common


@contextmanager
def versions_of(network: Network, against: Patch | Backbone | str | None) -> Iterator[Versions | None]:
    """``network`` and what guidance leads away from; None: nothing. A patch of it is attached within the context only.

    Raises:
        ConfigError: ``against`` is nothing of that kind, or both versions are the same.
        PatchError: the patch does not fit the backbone.
    """
    if against is None:
        yield None
        return
    from ..backbones import Backbone
    from ..patching import BackboneVersions, Patch, PatchVersions, attach

    ours = network.denoiser
    if isinstance(against, Backbone):
        _check_pair(network.backbone, against)
        yield BackboneVersions(ours, against.eval())
    elif isinstance(against, Patch):
        patched = attach(ours, against, name=_NAME)
        try:
            yield PatchVersions(patched, theirs=(_NAME,))
        finally:
            patched.detach(_NAME)
    elif against == "base":
        if network.patch is None:
            raise ConfigError('against="base": this is the backbone itself', hint="Give a patched backbone.")
        yield PatchVersions(ours, theirs=())  # type: ignore[arg-type]
    else:
        raise ConfigError(f'against={against!r}: give a patch, another backbone, or "base"')


def _check_pair(ours: Backbone, other: Backbone) -> None:
    if other is ours:
        raise ConfigError("against: it is the backbone that is drawn from")
    if ours.takes_text:
        raise ConfigError(
            "against: another backbone that reads text would need a text encoder of its own",
            hint="Give a patch of this backbone.",
        )
    for what in _SHARED:
        if getattr(other, what) != getattr(ours, what):
            told = what.replace("_", " ")
            raise ConfigError(f"against: its {told} is {getattr(other, what)}, not {getattr(ours, what)}")
    noises = [one.schedule.model_dump(exclude={"sampling"}) for one in (other, ours)]
    if noises[0] != noises[1]:
        raise ConfigError(f"against: it was trained under another noise schedule: {describe_changes(*noises)}")
