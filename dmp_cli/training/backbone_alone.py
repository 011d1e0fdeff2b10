"""The network that a run started from, in the midst of the run: what is learnt is off for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from ..patching import PatchedBackbone, Tuned, adapter_off
from .methods import Trainee


@contextlib.contextmanager
def bare(trainee: Trainee) -> Iterator[None]:
    """Context in which ``trainee.denoiser`` is the backbone itself.

    Where the backbone's own weights are trained it is so before the first step alone; see ``Trainee.is_frozen``.
    """
    with contextlib.ExitStack() as off:
        if isinstance(trainee.denoiser, PatchedBackbone):
            off.enter_context(trainee.denoiser.disabled())
        elif trainee.adapter is not None:
            off.enter_context(adapter_off(trainee.backbone))
        elif trainee.tuned is not None:
            off.enter_context(trainee.holding(_own_values(trainee.tuned)))
        yield


def _own_values(tuned: Tuned) -> dict[str, Tensor]:
    """The backbone's own values in the places of the learnt ones; a scale that it has not got is 1."""
    learnt = tuned.parameters
    return {
        name: tuned.own[name].detach().to(one.device, one.dtype) if name in tuned.own else torch.ones_like(one)
        for name, one in learnt.items()
    }
