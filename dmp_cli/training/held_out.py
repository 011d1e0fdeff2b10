"""The loss on held-out images: fixed noise, timesteps spread over the whole range, trained and bare network in pairs.

Every measurement computes the same draws, so that two of them differ by the network and by nothing else. A draw is an
image, a timestep and noise. Draw k of N has a timestep of the k-th of N equal parts of the range.

Letters: N draws, (C, H, W) the shape of a sample.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..config import Dtype
from ..data import ImageSource, Reader, as_floats
from ..diffusion import Process, make_process, noise_share
from ..errors import DataError
from ..latents import Codec
from ..runtime import World, autocast, randomness

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
    edges: tuple[int | float, ...]  # (BANDS + 1,): band i is from edges[i] to edges[i + 1], itself left out

    def line(self) -> dict[str, Any]:
        """The entry ``held_out`` of a line of ``log.jsonl``."""
        bands = [
            {"from": low, "to": high if isinstance(high, float) else high - 1, **vars(band)}
            for low, high, band in zip(self.edges, self.edges[1:], self.bands, strict=False)
        ]
        return {**vars(self.whole), "bands": bands}


class HeldOut:
    """Fixed draws of images, timesteps and noise, for any denoiser of one backbone."""

    def __init__(
        self,
        backbone: Backbone,
        codec: Codec,
        *,
        source: tuple[ImageSource, Reader],
        draws: int,
        seed: int = 0,
        dtype: Dtype = "fp32",
        world: World | None = None,
        is_spread: bool = False,
    ) -> None:
        """``source`` are the held-out images, and what reads their values; ``draws`` is N, and ``seed`` fixes them.

        ``is_spread``: whether the weights are spread over the processes of ``world``, so that all compute every chunk.

        Raises:
            DataError: an image cannot be read, or there are too few draws for a band.
        """
        images, reader = source
        self.backbone, self.codec, self._dtype, self._seed = backbone, codec, dtype, seed
        self._world, self._is_spread = world or World(), is_spread
        self._process = make_process(backbone.schedule, device=backbone.device)
        self.timesteps = _stratify(draws, self._process, seed=seed)  # (N,), low noise first
        self.images = chosen_images(len(images), draws, seed=seed)  # (N,)
        self.edges = self._process.edges(BANDS)
        self._bands = self._find_bands(backbone)
        if min(band.sum() for band in self._bands) < _FEWEST:
            raise DataError(
                f"--val-draws {draws} are too few for {BANDS} bands of {self._process.num_timesteps} timesteps",
                hint=f"Give {BANDS * (_FEWEST + 1)} or more.",
            )
        self._values = self._encode({i: reader.read(i, mirrored=False) for i in sorted(set(self.images.tolist()))})
        self._labels = _conditions(images, self.images, backbone)

    def _find_bands(self, backbone: Backbone) -> list[np.ndarray]:
        """Which draws lie in each band, BANDS times (N,) bool."""
        steps, ends = self.timesteps.numpy(), self.edges
        if backbone.schedule.flow is None:
            return [(steps >= low) & (steps < high) for low, high in itertools.pairwise(ends)]
        shares = np.array([noise_share(step, backbone.schedule) for step in steps.tolist()])
        places = (shares * BANDS).astype(int).clip(max=BANDS - 1)
        return [places == band for band in range(BANDS)]

    def _encode(self, values: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
        """What the codec keeps of each image, (K, h, w) float32; pixels of a backbone without a VAE stay uint8.

        Once, as every measurement needs the same: a VAE costs more than a step of many backbones.
        """
        known = list(values)
        if self.codec.record.kind == "pixel" or values[known[0]].dtype != np.uint8:
            return values
        encoded: dict[int, np.ndarray] = {}
        with torch.no_grad():
            for first in range(0, len(known), _CHUNK):
                part = known[first : first + _CHUNK]
                pixels = torch.from_numpy(np.stack([values[index] for index in part])).to(self.backbone.device)
                measured = self.codec.measure(as_floats(pixels)).float().cpu().numpy()
                encoded |= dict(zip(part, measured, strict=True))
        return encoded

    def compare(self, losses: np.ndarray, *, base: np.ndarray | None) -> HeldOutLoss:
        """Means and paired differences of the losses (N,) from those of the bare network; None: there is none."""
        bands = tuple(_pair(losses[band], None if base is None else base[band], None) for band in self._bands)
        return HeldOutLoss(_pair(losses, base, self._bands), bands, self.edges)

    def table(self, losses: np.ndarray, *, base: np.ndarray | None) -> str:
        """A row for each draw: its image by its number in the source, its timestep, its loss, the bare network's."""
        bare = [""] * len(losses) if base is None else base
        rows = zip(self.images.tolist(), self.timesteps.tolist(), losses, bare, strict=True)
        lines = [f"{image},{timestep},{loss},{other}" for image, timestep, loss, other in rows]
        return "\n".join(["image,timestep,loss,bare", *lines]) + "\n"

    def losses(self, denoiser: nn.Module) -> np.ndarray:
        """The mean squared error of each draw, (N,) float64. All processes call this together, and get the same."""
        count = len(self.images)
        chunks = [range(first, min(first + _CHUNK, count)) for first in range(0, count, _CHUNK)]
        found = torch.zeros(count, device=self.backbone.device)
        with torch.no_grad():
            for chunk in chunks if self._is_spread else chunks[self._world.rank :: self._world.size]:
                found[chunk.start : chunk.stop] = self._losses_of(denoiser, chunk).float()
        if not self._is_spread:
            self._world.add_up([found])
        return found.double().cpu().numpy()

    def _losses_of(self, denoiser: nn.Module, chunk: range) -> Tensor:
        """The losses of the draws in ``chunk``, (b,)."""
        device, shape = self.backbone.device, self.backbone.sample_shape
        timesteps = self.timesteps[chunk.start : chunk.stop].to(device)
        values = torch.from_numpy(np.stack([self._values[int(self.images[draw])] for draw in chunk])).to(device)

        def draw(what: str) -> Tensor:
            return randomness.normal(f"held-out-{what}", shape, seed=self._seed, step=0, indices=chunk).to(device)

        noise = draw("noise")
        measured = self.codec.measure(as_floats(values)) if values.dtype == torch.uint8 else values
        x0 = self.codec.draw(measured, noise=draw("posterior") if self.codec.has_posterior else None)
        xt = self._process.add_noise(x0, noise=noise, timesteps=timesteps)
        condition = None if self._labels is None else self._labels[chunk.start : chunk.stop].to(device)
        with autocast(device, self._dtype):
            prediction = denoiser(xt, timesteps, condition)
        return self._process.loss(prediction, x0=x0, xt=xt, noise=noise, timesteps=timesteps).mse


def chosen_images(count: int, draws: int, *, seed: int = 0) -> Tensor:
    """Which of ``count`` images each of ``draws`` draws shows, (N,): each equally often, in no order of timesteps."""
    rounds = [
        torch.from_numpy(randomness.permutation("held-out-images", count, seed=seed, step=turn))
        for turn in range(math.ceil(draws / count))
    ]
    return torch.cat(rounds)[:draws]


def _stratify(count: int, process: Process, *, seed: int) -> Tensor:
    """A level from each of ``count`` equal parts of the range, (N,), low noise first."""
    within = randomness.uniform("held-out-timesteps", seed=seed, step=0, indices=range(count))
    return process.levels((torch.arange(count) + within.double()) / count)


def _conditions(images: ImageSource, chosen: Tensor, backbone: Backbone) -> Tensor | None:
    """The condition of each draw, (N,): its class, or the index of its first caption; None: the backbone takes none."""
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
