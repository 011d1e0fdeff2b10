"""The loss on held-out images: fixed noise, timesteps spread over the whole range, trained and bare network in pairs.

Every measurement computes the same draws, so that two of them differ by what was learnt and by nothing else. A draw is
an image, a timestep and noise. Draw k of N has a timestep of the k-th of N equal parts of the range.

Letters: N draws, (C, H, W) the shape of a sample.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import TrainConfig
from ..data import ImageSource, Reader, as_floats
from ..diffusion import Schedule, denoising_loss
from ..errors import DataError
from ..patching import PatchedBackbone
from ..runtime import World, autocast, randomness
from .methods import Trainee

BANDS = 10  # equal parts of the range of timesteps, each reported by itself
_CHUNK = 32  # draws that are computed together; always the same ones, so that numbers depend on no process or batch
_FEWEST = 2  # draws of a band, of which an error can be estimated


@dataclass(frozen=True)
class Paired:
    """A mean loss, that of the bare network on the same draws, and the difference with its 95 % interval."""

    loss: float
    base: float | None  # None: there is no bare network, as for training from scratch
    difference: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class HeldOutLoss:
    """One measurement: over all draws, and over those of each band of timesteps, low noise first."""

    whole: Paired
    bands: tuple[Paired, ...]
    edges: tuple[int, ...]  # (BANDS + 1,) timesteps: band i is from edges[i] to edges[i + 1] - 1

    def line(self) -> dict[str, Any]:
        """The entry ``held_out`` of a line of ``log.jsonl``."""
        bands = [
            {"from": low, "to": high - 1, **vars(band)}
            for low, high, band in zip(self.edges, self.edges[1:], self.bands, strict=False)
        ]
        return {**vars(self.whole), "bands": bands}


class HeldOut:
    """The fixed draws of a run, and the losses of the bare network on them."""

    def __init__(
        self, trainee: Trainee, config: TrainConfig, *, source: tuple[ImageSource, Reader], world: World
    ) -> None:
        """``source`` are the held-out images, and what reads their values.

        ``trainee`` is as it was before the first step: without its patches it computes as the bare network.

        Raises:
            DataError: an image cannot be read, or there are too few draws for a band.
        """
        self.trainee, self.config, self.world = trainee, config, world
        images, reader = source
        count = config.val_draws
        self._schedule = Schedule(trainee.backbone.schedule, device=trainee.backbone.device)
        self.timesteps = _stratify(count, self._schedule.num_timesteps)  # (N,), rising
        self.images = chosen_images(len(images), count)  # (N,)
        self.edges = tuple(math.ceil(band * self._schedule.num_timesteps / BANDS) for band in range(BANDS + 1))
        steps, ranges = self.timesteps.numpy(), zip(self.edges, self.edges[1:], strict=False)
        self._bands = [(steps >= low) & (steps < high) for low, high in ranges]  # BANDS times (N,) bool
        if min(band.sum() for band in self._bands) < _FEWEST:
            raise DataError(
                f"--val-draws {count} are too few for {BANDS} bands of {self._schedule.num_timesteps} timesteps",
                hint=f"Give {BANDS * _FEWEST} or more.",
            )
        self._values = {index: reader.read(index, mirrored=False) for index in sorted(set(self.images.tolist()))}
        self._labels = _conditions(images, self.images, trainee)
        self._base: np.ndarray | None = None if config.method == "scratch" else self._measure(bare=True)

    def measure(self) -> HeldOutLoss:
        """The loss of what is learnt by now. All processes call this together, and get the same numbers."""
        losses = self._measure(bare=False)
        base = self._base
        bands = tuple(_pair(losses[band], None if base is None else base[band], None) for band in self._bands)
        return HeldOutLoss(_pair(losses, base, self._bands), bands, self.edges)

    def _measure(self, *, bare: bool) -> np.ndarray:
        """The mean squared error of each draw, (N,) float64; this process computes its share of the chunks."""
        chunks = [range(first, min(first + _CHUNK, len(self.images))) for first in range(0, len(self.images), _CHUNK)]
        losses = torch.zeros(len(self.images), device=self.trainee.backbone.device)
        denoiser = self.trainee.denoiser
        off = denoiser.disabled() if bare and isinstance(denoiser, PatchedBackbone) else contextlib.nullcontext()
        with torch.no_grad(), off:
            # Where weights are spread over the processes, all of them have to compute every chunk.
            own = chunks if self.config.shard_backbone else chunks[self.world.rank :: self.world.size]
            for chunk in own:
                losses[chunk.start : chunk.stop] = self._losses(chunk).float()
        if not self.config.shard_backbone:
            self.world.add_up([losses])
        return losses.double().cpu().numpy()

    def _losses(self, chunk: range) -> Tensor:
        """The losses of the draws in ``chunk``, (b,)."""
        trainee, device = self.trainee, self.trainee.backbone.device
        shape, timesteps = trainee.backbone.sample_shape, self.timesteps[chunk.start : chunk.stop].to(device)
        values = torch.from_numpy(np.stack([self._values[int(self.images[draw])] for draw in chunk])).to(device)
        noise, posterior = (
            randomness.normal(f"held-out-{what}", shape, seed=0, step=0, indices=chunk).to(device)
            for what in ("noise", "posterior")
        )
        measured = trainee.codec.measure(as_floats(values)) if values.dtype == torch.uint8 else values
        x0 = trainee.codec.draw(measured, noise=posterior if trainee.codec.has_posterior else None)
        xt = self._schedule.add_noise(x0, noise=noise, timesteps=timesteps)
        condition = None if self._labels is None else self._labels[chunk.start : chunk.stop].to(device)
        with autocast(device, self.config.dtype):
            prediction = trainee.denoiser(xt, timesteps, condition)
        return denoising_loss(prediction, x0=x0, xt=xt, noise=noise, timesteps=timesteps, schedule=self._schedule).mse


def chosen_images(count: int, draws: int) -> Tensor:
    """Which of ``count`` images each of ``draws`` draws shows, (N,): each equally often, in no order of timesteps."""
    rounds = [
        torch.from_numpy(randomness.permutation("held-out-images", count, seed=0, step=turn))
        for turn in range(math.ceil(draws / count))
    ]
    return torch.cat(rounds)[:draws]


def _stratify(count: int, num_timesteps: int) -> Tensor:
    """A timestep from each of ``count`` equal parts of the range, (N,) int64, rising."""
    within = randomness.uniform("held-out-timesteps", seed=0, step=0, indices=range(count))
    return ((torch.arange(count) + within.double()) * num_timesteps / count).long().clamp(max=num_timesteps - 1)


def _conditions(images: ImageSource, chosen: Tensor, trainee: Trainee) -> Tensor | None:
    """The condition of each draw, (N,): its class, or the index of its first caption; None: the backbone takes none."""
    backbone = trainee.backbone
    if backbone.takes_text:
        return backbone.captions.indices([images.caption(int(index)) for index in chosen])
    if backbone.num_classes == 0:
        return None
    labels = torch.from_numpy(images.labels)[chosen]
    return torch.zeros_like(labels) if backbone.num_classes == 1 else labels


def _pair(losses: np.ndarray, base: np.ndarray | None, strata: list[np.ndarray] | None) -> Paired:
    """Means over draws, and the 95 % interval of the paired difference, with Student's t.

    With ``strata`` the error is that of a stratified mean: each band has its own variance.
    """
    from scipy.stats import t

    if base is None:
        return Paired(float(losses.mean()), None, None, None)
    difference = losses - base
    count = len(difference)
    parts = [difference] if strata is None else [difference[band] for band in strata]
    variance = sum((len(part) / count) ** 2 * part.var(ddof=1) / len(part) for part in parts)
    reach = float(t.ppf(0.975, df=count - len(parts))) * math.sqrt(variance)
    mean = float(difference.mean())
    return Paired(float(losses.mean()), float(base.mean()), mean, (mean - reach, mean + reach))
