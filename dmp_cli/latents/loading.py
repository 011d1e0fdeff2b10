"""Finding and reading the codec of a backbone: pixels, or a VAE in a folder, a pipeline or the hub's local cache."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import torch

from ..backbones import Backbone, building, check_sizes, sizes_of, vae_of
from ..config import CodecRecord
from ..errors import CheckpointError, ConfigError
from ..storage import check_finite, digest_tensors, load_strictly, read_weights, unpickled, variant_of
from .codec import Codec, PixelCodec, VAECodec

# Config fields of a VAE that change nothing here: a hint of a size, the precision on a GPU, the range of pictures of
# latents.
_WITHOUT_EFFECT = ("class", "sample_size", "force_upcast", "latent_magnitude", "latent_shift")
_STEM = "diffusion_pytorch_model"  # what the names of a VAE's weight files begin with
_DEFAULT_VAE = "stabilityai/sd-vae-ft-ema"  # what the public DiTs were trained with


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
    if record is not None and not record.is_same(codec.record):
        differing = _differing(record, codec.record)
        raise ConfigError(
            f"the patch was trained with another codec: {record.source or 'pixel space'}, not {choice}"
            + (f", whose config differs: {differing}" if differing else ""),
            hint="Give that codec with --vae.",
        )
    return codec


def check_vae_place(choice: str | None) -> None:
    """Raise CheckpointError if ``choice``, as given with --vae, is a path where nothing is; it reads no weight."""
    if choice is None or choice == "none" or Path(choice).exists():
        return
    if choice.count("/") != 1 or choice.startswith((".", "/", "~")):
        raise CheckpointError(
            f"{choice} does not exist", hint="Give a VAE's folder or hub id with --vae, or --vae none."
        )


def load_vae(source: str, *, download: bool = False, device: torch.device | str = "cpu") -> VAECodec:
    """The VAE in a folder, a pipeline's folder, a hub repository, or a file of the original Stable Diffusion.

    Raises:
        CheckpointError: it cannot be read.
    """
    check_vae_place(source)
    path = Path(source)
    folder = path / "vae" if (path / "vae" / "config.json").exists() else path
    try:
        if folder.is_file():
            vae, kind = _read_original(folder), "vae"
        else:
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
    # Not by the model's own method, which warns of types that nobody here has chosen.
    vae = torch.nn.Module.to(vae, device, torch.float32).eval().requires_grad_(False)
    check_finite(vae.state_dict(), source=source)
    place = os.path.abspath(path) if folder.exists() else source
    digest, settings = digest_tensors(vae.state_dict()), _settings_of(vae)
    with building(source):
        return VAECodec(vae, CodecRecord(kind=kind, source=place, digest=digest, settings=settings))


def _settings_of(vae: Any) -> dict[str, Any]:
    """The config fields that change what the VAE computes, where they differ from the defaults of its class."""
    settings = {key: value for key, value in sizes_of(vae).items() if key not in _WITHOUT_EFFECT}
    return {key: value for key, value in settings.items() if key != "shift_factor" or value}


def _differing(one: CodecRecord, other: CodecRecord) -> str:
    """How the configs of two codecs with the same weights differ, in words."""
    if one.digest != other.digest or one.settings is None or other.settings is None:
        return ""
    keys = [key for key in sorted({*one.settings, *other.settings}) if one.settings.get(key) != other.settings.get(key)]
    told = [(key, *(known.get(key, "the default") for known in (one.settings, other.settings))) for key in keys]
    return ", ".join(f"{key} {theirs}, not {ours}" for key, theirs, ours in told)


def _read_vae(folder: str, source: str, *, download: bool) -> tuple[Any, str]:
    """The VAE in a folder or hub repository, and its kind."""
    from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLQwenImage, AutoencoderTiny

    config = AutoencoderKL.load_config(folder, local_files_only=not download)
    kinds = {
        "AutoencoderKL": (AutoencoderKL, "vae"),
        "AutoencoderTiny": (AutoencoderTiny, "tiny-vae"),
        "AutoencoderDC": (AutoencoderDC, "dc-vae"),
        "AutoencoderKLQwenImage": (AutoencoderKLQwenImage, "video-vae"),
    }
    check_sizes(config, source=source)
    name = config["_class_name"]
    if name not in kinds:
        raise CheckpointError(f"{source} is a {name}, not one of {', '.join(kinds)}")
    loader, kind = kinds[name]
    with unpickled(_with_weights(folder, download=download), _STEM, to=_STEM) as place:
        _check_room(loader, config, place, source=source)
        # low_cpu_mem_usage needs accelerate, and prints a long message without it
        vae, report = loader.from_pretrained(
            str(place),
            local_files_only=not download,
            output_loading_info=True,
            low_cpu_mem_usage=False,
            use_safetensors=True,  # a pickle would be opened by a reader that is not ours
            variant=variant_of(place, _STEM),
        )
    problems = [f"{len(names)} {key} such as {sorted(names)[0]}" for key, names in report.items() if names]
    if problems:
        raise CheckpointError(f"{source}: its tensors do not fit: {'; '.join(problems)}")
    return vae, kind


def _check_room(loader: Any, config: dict[str, Any], place: Path, *, source: str) -> None:
    """Raise CheckpointError where a config describes more weights than the files have bytes, before they get memory."""
    with torch.device("meta"):
        described = sum(tensor.numel() for tensor in loader.from_config(config).state_dict().values())
    held = sum(file.stat().st_size for file in place.glob("*.safetensors")) if place.is_dir() else described
    if 0 < held < described:  # where there is none, the library says which it misses
        raise CheckpointError(
            f"{source}: its config describes {described:,} weights, and its files have {held:,} bytes"
        )


def _with_weights(folder: str, *, download: bool) -> Path:
    """The folder, or that of the hub's cache in which a repository's weights lie; else its name, as it is."""
    if Path(folder).is_dir():
        return Path(folder)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for name in (f"{_STEM}.safetensors", f"{_STEM}.bin"):
        with contextlib.suppress(EntryNotFoundError):  # LocalEntryNotFoundError is one
            return Path(hf_hub_download(folder, name, local_files_only=not download)).parent
    return Path(folder)


def _read_original(file: Path) -> Any:
    """The VAE in an original Stable Diffusion file, or in a file of its own."""
    from diffusers import AutoencoderKL

    config, tensors = vae_of(read_weights(file).tensors, source=file)
    with torch.device("meta"):
        vae = AutoencoderKL(**config)
    load_strictly(vae, tensors, source=file)
    return vae


def _check_channels(codec: Codec, channels: int, choice: str) -> None:
    latent = codec.latent_channels if isinstance(codec, VAECodec) else channels
    if latent != channels:
        raise ConfigError(f"--vae {choice} makes {latent} channels; the backbone denoises {channels}")
