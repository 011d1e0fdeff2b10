"""Why the loss of a run is not finite: its inputs, the frozen backbone, or what is trained."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DivergedError
from ..patching import PatchedBackbone
from .loop import TrainingLoop
from .objective import Inputs

_OTHER = {"fp16": "--dtype bf16 or fp32", "bf16": "--dtype fp32"}  # what reaches further, or is more precise


def explain(error: DivergedError, loop: TrainingLoop, inputs: Inputs) -> DivergedError:
    """``error`` with its cause, as far as ``inputs``, those of the newest step, show it. This waits for the device."""
    cause = _cause(loop, inputs)
    return error if cause is None else DivergedError(f"{error.message}; {cause[0]}", hint=cause[1])


def _cause(loop: TrainingLoop, inputs: Inputs) -> tuple[str, str] | None:
    """The cause and a hint; None: what is trained has diverged, which the error itself says."""
    trainee, config = loop.trainee, loop.config
    if not _is_finite(inputs.batch.values):
        return "the images or their latents are not finite", "Make the latent store anew, or use another --dtype."
    if not trainee.is_frozen:
        return None
    learnt = {id(parameter) for parameter in trainee.learnt.values()}
    for name, parameter in trainee.backbone.named_parameters():
        if id(parameter) not in learnt and not _is_finite(parameter):
            hint = "Check the file it was loaded from. A fault of the device's memory can do this too."
            return f"the frozen backbone's weight {name} is not finite", hint
    if isinstance(trainee.denoiser, PatchedBackbone) and not _bare_is_finite(loop, trainee.denoiser, inputs):
        other = _OTHER.get(config.dtype, "another --device")
        why = ": it has values beyond 65,504, where fp16 ends" if config.dtype == "fp16" else ""
        return (
            f"the frozen backbone itself, without the patch, is not finite under --dtype {config.dtype}{why}",
            f"It is not the patch that diverged. Start anew with {other}.",
        )
    return None


@torch.no_grad()
def _bare_is_finite(loop: TrainingLoop, denoiser: PatchedBackbone, inputs: Inputs) -> bool:
    """Whether the loss of the bare backbone is finite on the first micro-batch."""
    with denoiser.disabled():
        loss, _ = loop.objective.denoise(inputs, loop.objective.labels(inputs.batch), loop.micro_batches.parts()[0])
    return _is_finite(loss)


def _is_finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all()) if values.is_floating_point() else True
