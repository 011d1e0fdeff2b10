"""Codecs between images and the space that a backbone denoises: a VAE of diffusers, or the pixels themselves.

B images of H x W pixels with C channels; latents have C' channels and sides H/f and W/f. K values are kept for each
latent position of an image.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import CodecRecord
from ..errors import CheckpointError, ConfigError


class Scaling(NamedTuple):
    """How the values of a VAE become those that a backbone denoises."""

    scale: float
    shift: float
    statistics: tuple[Tensor, Tensor] | None  # mean and standard deviation of each channel, (1, C', 1, 1)

    def apply(self, values: Tensor) -> Tensor:
        """Latents (B, C', H/f, W/f) of what the VAE's encoder gives."""
        if self.statistics is None:
            return (values - self.shift) * self.scale
        mean, std = (one.to(values) for one in self.statistics)
        return (values - mean) * self.scale / std

    def undo(self, latents: Tensor) -> Tensor:
        """What the VAE decodes, of the latents that a backbone sees."""
        if self.statistics is None:
            return latents / self.scale + self.shift
        mean, std = (one.to(latents) for one in self.statistics)
        return latents * std / self.scale + mean


class Codec(ABC):
    """Turns images (B, C, H, W) in [-1, 1] into latents (B, C', H/f, W/f) and back."""

    record: CodecRecord
    factor: int  # f, image side / latent side
    image_channels: int
    clips: bool  # whether decoded values lie in [-1, 1], so that a sampler may clip its guess of x_0

    has_posterior: bool  # whether an image has a normal distribution of latents, instead of one latent

    @abstractmethod
    def measure(self, images: Tensor) -> Tensor:
        """What has to be kept of images (B, C, H, W) to draw latents from later: (B, K, H/f, W/f) float32.

        With a posterior, its mean and then its standard deviation, K = 2 C'; else the latents, K = C'.
        """

    @abstractmethod
    def draw(self, measured: Tensor, *, noise: Tensor | None) -> Tensor:
        """Latents (B, C', H/f, W/f) from the result of :meth:`measure`; a posterior needs standard normal ``noise``."""

    def encode(self, images: Tensor, *, noise: Tensor | None) -> Tensor:
        """Latents (B, C', H/f, W/f) of images (B, C, H, W)."""
        return self.draw(self.measure(images), noise=noise)

    def to(self, device: torch.device) -> None:
        """Move the codec's weights, if it has any, to ``device``."""
        return

    def rest(self) -> None:
        """Let the codec's weights wait in main memory from now on; each call takes them where its input is."""
        return

    def tile(self) -> int:
        """Decode large images in tiles from now on, which overlap: less memory, and values that are a little other.

        Returns the side of a tile in pixels.

        Raises:
            ConfigError: the codec cannot.
        """
        raise ConfigError("--vae-tiling: this backbone denoises pixels, so there is no VAE", hint="Leave it out.")

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, C, H, W) of latents, about in [-1, 1]; they are not clipped."""


class PixelCodec(Codec):
    """No codec: the backbone denoises pixels."""

    factor, clips, has_posterior = 1, True, False

    def __init__(self, image_channels: int) -> None:
        self.image_channels = image_channels
        self.record = CodecRecord(kind="pixel")

    def measure(self, images: Tensor) -> Tensor:
        return images

    def draw(self, measured: Tensor, *, noise: Tensor | None) -> Tensor:
        return measured

    def decode(self, latents: Tensor) -> Tensor:
        return latents


def _check_config(config: Any) -> None:
    """Raise ValueError where a VAE's config has no channels or stages that a VAE can have."""
    is_video = "z_dim" in config
    stages = config.get("block_out_channels") or config.get("encoder_block_out_channels") or config.get("dim_mult")
    if not isinstance(stages, (list, tuple)) or not 1 <= len(stages) <= 16:
        raise ValueError(f"its config has stages {stages!r:.60}")
    for name in ("input_channels", "z_dim") if is_video else ("in_channels", "latent_channels"):
        value = config.get(name)
        if not (isinstance(value, int) and 1 <= value <= 4096):
            raise ValueError(f"its config has {name} {value!r:.60}")


class VAECodec(Codec):
    """A VAE of diffusers, of images or of videos; scale, shift and statistics come from its config."""

    clips = False
    _rests = False  # whether its weights wait in main memory between two calls

    def __init__(self, vae: Any, record: CodecRecord) -> None:
        _check_config(vae.config)
        self.vae, self.record = vae, record
        self.has_posterior, self.is_video = record.kind in ("vae", "video-vae"), record.kind == "video-vae"
        names = ("input_channels", "z_dim") if self.is_video else ("in_channels", "latent_channels")
        self.image_channels, self.latent_channels = (int(vae.config[name]) for name in names)
        stages = vae.config.get("block_out_channels") or vae.config.get("encoder_block_out_channels")
        self.factor = 2 ** (len(stages or vae.config["dim_mult"]) - 1)
        scale, shift = (vae.config.get(f"{name}_factor") for name in ("scaling", "shift"))
        self.scaling = Scaling(scale or 1.0, shift or 0.0, _statistics_of(vae.config, record.source))

    @torch.no_grad()
    def measure(self, images: Tensor) -> Tensor:
        # a VAE of videos sees an image as a video of one frame
        with self._at_work(images.device):
            encoded = self.vae.encode(images.unsqueeze(2) if self.is_video else images)
        if not self.has_posterior:
            latents: Tensor = encoded.latent if self.record.kind == "dc-vae" else encoded.latents
            return latents
        measured = torch.cat([encoded.latent_dist.mean, encoded.latent_dist.std], dim=1)
        return measured.squeeze(2) if self.is_video else measured

    def draw(self, measured: Tensor, *, noise: Tensor | None) -> Tensor:
        latents = measured
        if self.has_posterior:
            assert noise is not None
            mean, std = measured.chunk(2, dim=1)
            latents = mean + std * noise
        return self.scaling.apply(latents)

    def to(self, device: torch.device) -> None:
        self.vae.to("cpu" if self._rests else device)

    def rest(self) -> None:
        self._rests = True
        self.vae.to("cpu")

    def tile(self) -> int:
        try:
            self.vae.enable_tiling()
            return int(getattr(self.vae, "tile_sample_min_size", None) or self.vae.tile_sample_min_height)
        except (AttributeError, NotImplementedError):
            name, place = type(self.vae).__name__, self.record.source
            raise ConfigError(f"--vae-tiling: {place} is a {name}, which cannot decode in tiles") from None

    @contextlib.contextmanager
    def _at_work(self, device: torch.device) -> Iterator[None]:
        """Context in which the weights are on ``device``, if they wait elsewhere between two calls."""
        if self._rests:
            self.vae.to(device)
        try:
            yield
        finally:
            if self._rests:
                self.vae.to("cpu")

    def decode(self, latents: Tensor) -> Tensor:
        with self._at_work(latents.device):
            return self._decode(latents)

    @torch.no_grad()
    def _decode(self, latents: Tensor) -> Tensor:
        try:
            values = self.scaling.undo(latents)
            found: Tensor = self.vae.decode(values.unsqueeze(2) if self.is_video else values).sample
            return found[:, :, 0] if self.is_video else found
        except torch.cuda.OutOfMemoryError:
            if len(latents) == 1:
                raise
        half = len(latents) // 2  # not in the handler, because the error keeps its memory alive there
        return torch.cat([self._decode(part) for part in (latents[:half], latents[half:])])


def _statistics_of(config: Any, source: object) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of each latent channel, (1, C', 1, 1), by which latents are normalised; or None.

    Raises:
        CheckpointError: one of them is missing, of another length, or stands beside a shift.
    """
    found = [config.get(key) for key in ("latents_mean", "latents_std")]
    if found == [None, None]:
        return None
    channels = config["z_dim"] if "z_dim" in config else config["latent_channels"]
    if any(values is None or len(values) != channels for values in found) or config.get("shift_factor"):
        raise CheckpointError(
            f"{source}: its config gives latents_mean and latents_std, which are supported for all {channels} "
            "channels and without a shift_factor only"
        )
    mean, std = (torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1) for values in found)
    return mean, std
