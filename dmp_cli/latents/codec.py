"""Codecs between images and the space that a backbone denoises: a VAE of diffusers, or the pixels themselves.

B images of H x W pixels with C channels; latents have C' channels and sides H/f and W/f. K values are kept for each
latent position of an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backbones import Backbone
from ..config import CodecRecord
from ..errors import CheckpointError, ConfigError
from ..storage import digest_tensors

_DEFAULT_VAE = "stabilityai/sd-vae-ft-ema"  # what the public DiTs were trained with


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


class VAECodec(Codec):
    """``AutoencoderKL`` or ``AutoencoderTiny`` of diffusers; scale and shift come from the VAE's config."""

    clips = False

    def __init__(self, vae: Any, record: CodecRecord) -> None:
        self.vae, self.record = vae, record
        self.has_posterior = record.kind == "vae"
        self.image_channels = vae.config["in_channels"]
        stages = vae.config.get("block_out_channels") or vae.config.get("encoder_block_out_channels")
        self.factor = 2 ** (len(stages) - 1)
        self.scale = vae.config.get("scaling_factor") or 1.0
        self.shift = vae.config.get("shift_factor") or 0.0

    @torch.no_grad()
    def measure(self, images: Tensor) -> Tensor:
        encoded = self.vae.encode(images)
        if not self.has_posterior:
            return encoded.latents
        return torch.cat([encoded.latent_dist.mean, encoded.latent_dist.std], dim=1)

    def draw(self, measured: Tensor, *, noise: Tensor | None) -> Tensor:
        latents = measured
        if self.has_posterior:
            assert noise is not None
            mean, std = measured.chunk(2, dim=1)
            latents = mean + std * noise
        return (latents - self.shift) * self.scale

    def to(self, device: torch.device) -> None:
        self.vae.to(device)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        try:
            return self.vae.decode(latents / self.scale + self.shift).sample
        except torch.cuda.OutOfMemoryError:
            if len(latents) == 1:
                raise
        half = len(latents) // 2  # not in the handler, because the error keeps its memory alive there
        return torch.cat([self.decode(part) for part in (latents[:half], latents[half:])])


def load_codec(
    choice: str | None, backbone: Backbone, *, record: CodecRecord | None = None, download: bool = False
) -> Codec:
    """The codec for ``backbone``, on its device.

    Args:
        choice: ``none`` for pixel space, or a VAE's folder or hub id. None takes the first of: ``record``, the codec
            that the backbone's own file names, pixel space for 1 or 3 channels, and the public DiTs' VAE for others.
        record: the codec that a patch was trained with; another codec is refused.
        download: whether a VAE that is not in the local hub cache may be downloaded.

    Raises:
        ConfigError: the codec does not fit the backbone's channels, or is not the recorded one.
        CheckpointError: its weights cannot be found or read.
    """
    known = record or backbone.codec
    channels = backbone.sample_shape[0]
    if choice is None:
        choice = (known.source or "none") if known else ("none" if channels in (1, 3) else _DEFAULT_VAE)
    if choice == "none":
        if channels not in (1, 3):
            raise ConfigError(f"--vae none: the backbone has {channels} channels; pixels have 1 or 3")
        codec: Codec = PixelCodec(channels)
    else:
        codec = load_vae(choice, download=download, device=backbone.device)
        _check_channels(codec, channels, choice)
    if record is not None and (record.kind, record.digest) != (codec.record.kind, codec.record.digest):
        raise ConfigError(
            f"the patch was trained with another codec: {record.source or 'pixel space'}, not {choice}",
            hint="Give that codec with --vae.",
        )
    return codec


def image_size(codec: Codec, backbone: Backbone) -> int:
    """Side in pixels of the images that ``backbone`` makes through ``codec``."""
    return backbone.sample_shape[1] * codec.factor


def load_vae(source: str, *, download: bool = False, device: torch.device | str = "cpu") -> VAECodec:
    """The VAE in a folder, a pipeline's folder or a hub repository. Raises CheckpointError if it cannot be read."""
    path = Path(source)
    folder = path / "vae" if (path / "vae" / "config.json").exists() else path
    if not folder.exists() and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
        raise CheckpointError(
            f"{source} does not exist", hint="Give a VAE's folder or hub id with --vae, or --vae none."
        )
    try:
        vae, kind = _read_vae(str(folder), source, download=download)
    except CheckpointError:
        raise
    except Exception as error:  # damage raises OSError, ValueError, RuntimeError, SafetensorError, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if not folder.exists():
            raise CheckpointError(
                f"no VAE at {source}: {reason if download else 'neither a folder here nor in the local hub cache'}",
                hint="Give a folder with --vae, or download it with --download.",
            ) from error
        raise CheckpointError(
            f"{source} cannot be read as a VAE: {reason}",
            hint="Give the whole folder that save_pretrained wrote, or the pipeline folder around it.",
        ) from error
    vae = vae.to(device).eval().requires_grad_(False)
    place = str(path.resolve()) if folder.exists() else source
    return VAECodec(vae, CodecRecord(kind=kind, source=place, digest=digest_tensors(vae.state_dict())))


def _read_vae(folder: str, source: str, *, download: bool) -> tuple[Any, str]:
    """The VAE in a folder or hub repository, and its kind."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    config = AutoencoderKL.load_config(folder, local_files_only=not download)
    kinds = {"AutoencoderKL": (AutoencoderKL, "vae"), "AutoencoderTiny": (AutoencoderTiny, "tiny-vae")}
    name = config["_class_name"]
    if name not in kinds:
        raise CheckpointError(f"{source} is a {name}, not an AutoencoderKL or AutoencoderTiny")
    loader, kind = kinds[name]
    # low_cpu_mem_usage needs accelerate, and prints a long message without it
    vae, report = loader.from_pretrained(
        folder, local_files_only=not download, output_loading_info=True, low_cpu_mem_usage=False
    )
    problems = [f"{len(names)} {key} such as {sorted(names)[0]}" for key, names in report.items() if names]
    if problems:
        raise CheckpointError(f"{source}: its tensors do not fit: {'; '.join(problems)}")
    return vae, kind


def _check_channels(codec: Codec, channels: int, choice: str) -> None:
    latent = codec.vae.config["latent_channels"] if isinstance(codec, VAECodec) else channels
    if latent != channels:
        raise ConfigError(f"--vae {choice} makes {latent} channels; the backbone denoises {channels}")
