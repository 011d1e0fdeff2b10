"""``guide``: guidance between two versions of a denoiser, wherever it is called. What it does: ``guided_calls``."""

from __future__ import annotations

import math

from torch import nn

from ..backbones import Backbone
from ..errors import PatchError
from .attachment import attach
from .guided_calls import Guidance
from .patched import PatchedBackbone
from .prompts import Patch
from .versions import PatchVersions

_OURS, _THEIRS = "guide-patch", "guide-against"  # names of the patches


def guide(
    module: nn.Module,
    *,
    against: Patch | None,
    scale: float = 1.0,
    patch: Patch | None = None,
    interval: tuple[float, float] | None = None,
    classifier_free: bool = True,
    force: bool = False,
) -> Guidance:
    """Move what a denoiser predicts away from another version of it: a + W (a - b), wherever it is called.

    ``module`` is the denoiser of a pipeline of diffusers, such as ``pipe.unet`` or ``pipe.transformer``, or a DiT that
    :func:`load_backbone` returned. Until :meth:`Guidance.detach` its pipeline draws with guidance. Both versions run as
    one batch on the same weights. Threads may call it at the same time.

    Args:
        against: the patch of the other version, b; None: b is the bare model.
        scale: W.
        patch: the patch of our version, a; None: a is the bare model.
        interval: two shares of the noise schedule, where 1 is pure noise: outside of them W is 0. None: everywhere.
        classifier_free: whether each call holds two halves for classifier-free guidance, as pipelines call it with a
            guidance_scale above 1: the null condition and the text, or the class and the null class in a DiT. The whole
            is then a_c + W (a_c - b_c) + (g - 1) (a_c - a_0), and b is computed for one half alone.
        force: accept other weights than those the patches were trained on.

    Raises:
        PatchError: a patch does not fit, or both versions are the same; and from a call that does not hold what
            ``classifier_free`` says.
    """
    _check(module, against, patch, scale=scale, interval=interval)
    patches = {name: one for name, one in ((_OURS, patch), (_THEIRS, against)) if one is not None}
    patched, done = module, []
    try:
        for name, one in patches.items():
            patched = attach(patched, one, name=name, force=force)
            done.append(name)
        assert isinstance(patched, PatchedBackbone)
        if patched.patches.keys() != patches.keys():
            raise PatchError("guide(): this model has a patch attached already", hint="Detach it first.")
        if classifier_free and not patched.backbone.has_null:
            raise PatchError("guide(): this model has no null condition", hint="Give classifier_free=False.")
    except PatchError:
        for name in done:
            patched.detach(name)  # type: ignore[operator]
        raise
    versions = PatchVersions(patched, theirs=patches.keys() & {_THEIRS})
    return Guidance(versions, scale=float(scale), interval=interval, classifier_free=classifier_free)


def _check(
    module: nn.Module,
    against: Patch | None,
    patch: Patch | None,
    *,
    scale: float,
    interval: tuple[float, float] | None,
) -> None:
    """Raise PatchError for what :func:`guide` cannot do, whatever the patches are."""
    if against is None and patch is None:
        raise PatchError("guide(): both versions are the bare model", hint="Give against=PATCH or patch=PATCH.")
    if against is patch:
        raise PatchError("guide(): both versions have the same patch")
    if not math.isfinite(scale):
        raise PatchError(f"guide(scale={scale}): give a finite number")
    if interval is not None and not 0 <= interval[0] <= interval[1] <= 1:
        raise PatchError(f"guide(interval={interval}): give two shares of the schedule, as (0.1, 0.9)")
    if isinstance(module, Backbone) and module.core is not module:
        # Its own sampling has the halves of a call the other way round than the pipelines of the model inside.
        raise PatchError(
            "guide() takes the model of a pipeline, and this is a backbone around one",
            hint="Give pipe.unet or pipe.transformer; for `dmp sample` there is --against.",
        )
