"""Images <-> the space a backbone denoises: a VAE of diffusers, or the pixels themselves."""

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
    """Turns images (B, C, H, W) in [-1, 1] into latents and back."""

    record: CodecRecord
    factor: int  # image side / latent side
    image_channels: int
    clips: bool  # whether what it decodes lies in [-1, 1], so that a sampler may clip its guess of x_0

    has_posterior: bool  # whether an image has a distribution of latents, not one alone

    @abstractmethod
    def measure(self, images: Tensor) -> Tensor:
        """What has to be kept of images (B, C, H, W) to draw their latents from: (B, K, H/f, W/f) float32.

        Mean and standard deviation one after the other where there is a posterior, else the latents.
        """

    @abstractmethod
    def draw(self, measured: Tensor, *, noise: Tensor | None) -> Tensor:
        """Latents (B, C', H/f, W/f) from what :meth:`measure` gave, by normal ``noise`` where there is a posterior."""

    def encode(self, images: Tensor, *, noise: Tensor | None) -> Tensor:
        """Latents (B, C', H/f, W/f) of images."""
        return self.draw(self.measure(images), noise=noise)

    def to(self, device: torch.device) -> None:
        """Move its weights, where it has some."""
        return

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Images in [-1, 1], not clipped."""


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
    """``AutoencoderKL`` or ``AutoencoderTiny`` of diffusers; scale and shift from its own config."""

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
        half = len(latents) // 2  # outside of the handler, which would hold the memory that was too much
        return torch.cat([self.decode(part) for part in (latents[:half], latents[half:])])


def load_codec(
    choice: str | None, backbone: Backbone, *, record: CodecRecord | None = None, download: bool = False
) -> Codec:
    """The codec for ``backbone``, on its device.

    Args:
        choice: ``none`` for pixel space, a folder or hub id of a VAE; None takes ``record``, then what the backbone's
            own file names, then pixel space for 1 or 3 channels and the public DiTs' VAE for 4.
        record: the codec a patch was trained with; another one is refused.

    Raises:
        ConfigError: a codec that does not fit the backbone's channels, or is not the recorded one.
        CheckpointError: weights that cannot be found or read.
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
            hint="Give that one with --vae.",
        )
    return codec


def image_size(codec: Codec, backbone: Backbone) -> int:
    """Side in pixels of the images that ``backbone`` makes through ``codec``."""
    return backbone.sample_shape[1] * codec.factor


def load_vae(source: str, *, download: bool = False, device: torch.device | str = "cpu") -> VAECodec:
    """A VAE by folder, pipeline folder or hub id. Raises CheckpointError for one that is not there or unreadable."""
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
    except Exception as error:  # diffusers reports damage as OSError, ValueError, RuntimeError, SafetensorError, ...
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if not folder.exists():
            raise CheckpointError(
                f"no VAE at {source}: {reason if download else 'neither a folder here nor in the local hub cache'}",
                hint="Give a folder with --vae, or let it be fetched with --download.",
            ) from error
        raise CheckpointError(
            f"{source} cannot be read as a VAE: {reason}",
            hint="Give the folder that save_pretrained wrote, whole, or the pipeline folder around it.",
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
    # low_cpu_mem_usage would want accelerate, and says so at length
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
