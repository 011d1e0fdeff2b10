"""The guided prediction of one chunk of images at a timestep or level, with gate weights that are computed once."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..backbones import Backbone, guided_inside
from ..config import SampleConfig
from ..diffusion import noise_share
from ..patching import PatchedBackbone, Versions
from ..runtime import Ambient, autocast, tracking
from .guidance import predict
from .plan import Item

_counted: Ambient[Callable[[], None]] = Ambient()  # what is told of each prediction in this thread


@contextlib.contextmanager
def telling_steps(config: SampleConfig) -> Iterator[None]:
    """Context in which whoever watches is told how many denoising steps of a chunk are done."""
    total = config.steps * (2 if "heun" in config.sampler else 1)  # predictions
    with tracking("step", total) as advance:
        done = itertools.count(1)
        with _counted.given(lambda: advance(min(next(done), total), "")):
            yield


class GuidedForward:
    """The guided prediction of one chunk, at any timestep or level."""

    def __init__(
        self,
        denoiser: nn.Module,
        network: Callable[..., Tensor],
        items: list[Item],
        *,
        backbone: Backbone,
        config: SampleConfig,
    ) -> None:
        """``network`` is what is called: ``denoiser`` itself, its compiled form, or Versions of it."""
        self.denoiser, self.network, self.backbone, self.config = denoiser, network, backbone, config
        self.condition, self.negative = _conditions(items, backbone), _negatives(items, backbone)
        self.scales = torch.tensor([item.guidance for item in items])

    def predict(self, x: Tensor, timestep: float) -> Tensor:
        """The prediction (B, C', H, W) for samples ``x`` (B, C, H, W) at ``timestep``."""
        if _counted.value is not None:
            _counted.value()
        config, backbone = self.config, self.backbone
        is_guided = _is_within(config.guidance_interval, timestep, backbone)
        apart = config.against_scale if _is_within(config.against_interval, timestep, backbone) else 0
        gated = self.network if isinstance(self.network, Versions) else self.denoiser
        is_inside = backbone.embedded_guidance is not None  # the scale is read by the network itself
        inside = guided_inside.given(self.scales if is_inside else None)
        with _gates_at(gated, timestep), autocast(backbone.device, config.dtype), inside:
            return predict(
                self.network,
                x,
                timestep,
                self.condition,
                backbone=backbone,
                config=config,
                guidance=self.scales if is_guided and not is_inside else torch.ones_like(self.scales),
                negative=self.negative,
                apart=apart or 0,
            )


def _gates_at(denoiser: nn.Module | Versions, timestep: float) -> contextlib.AbstractContextManager[None]:
    """Context for one step: its images share a timestep, so a patch computes its gate weights once for all chunks."""
    patched = denoiser.patched if isinstance(denoiser, Versions) else denoiser
    return patched.at(timestep) if isinstance(patched, PatchedBackbone) else contextlib.nullcontext()


def _is_within(interval: tuple[float, float] | None, timestep: float, backbone: Backbone) -> bool:
    """Whether ``timestep`` lies in a guidance interval (Kynkäänniemi et al. 2024); outside, one forward is enough."""
    low, high = interval or (0, 1)
    return low <= noise_share(timestep, backbone.schedule) <= high


def _conditions(items: list[Item], backbone: Backbone) -> Tensor | None:
    """The condition of the images, (B,): classes, or indices of captions; None for a backbone that takes neither."""
    if backbone.takes_text:
        found = backbone.captions.indices([item.prompt for item in items if item.prompt is not None])
        return found.to(backbone.device)  # the encoders may be elsewhere
    labels = [item.label for item in items if item.label is not None]
    return torch.tensor(labels, device=backbone.device) if labels else None


def _negatives(items: list[Item], backbone: Backbone) -> Tensor | None:
    """What guidance leads away from, (B,) indices of captions; None: from the null condition in all images."""
    if all(item.negative is None for item in items):
        return None
    return backbone.captions.indices([item.negative or "" for item in items]).to(backbone.device)
