"""Find a backbone's weights: an embedded file, a path, the user's checkpoint folder, or the hub's local cache."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..errors import CheckpointError, ConfigError
from ..storage import PICKLES, SAFETENSORS, Weights, home_folder, read_weights
from .names import PUBLIC_HOMES, named_sizes, plain_name

EMBEDDED = {"digits": Path(__file__).parent.parent / "demo" / "backbone.safetensors"}


class Found(NamedTuple):
    """Weights and the place where they were found."""

    weights: Weights
    source: str  # an absolute path or a hub id, which finds them again
    public: bool = False  # whether they are a known public checkpoint


def checkpoint_folder() -> Path:
    """The folder to search for a name's weights: ``$DMP_HOME/checkpoints``, by default in the user's data folder."""
    return home_folder() / "checkpoints"


def find_weights(name: str, checkpoint: Path | None, *, download: bool) -> Found:
    """Find and read the weights that a name, path or hub id stands for, or those at ``checkpoint``.

    Raises:
        CheckpointError: the weights are missing, damaged or unsafe.
        ConfigError: ``name`` and ``checkpoint`` are two different files.
    """
    if checkpoint is not None:
        if not is_name(name) and Path(name).resolve() != Path(checkpoint).resolve():
            raise ConfigError(f"--backbone {name} and --checkpoint {checkpoint} are two different files")
        return _read(Path(checkpoint))
    if name in EMBEDDED:
        return _read(EMBEDDED[name])
    if named_sizes(name) is not None:
        return _find_named(name, download=download)
    if Path(name).exists() or not _looks_like_hub_id(name):
        return _read(Path(name))
    return _read_hub(name, download=download)


def _find_named(name: str, *, download: bool) -> Found:
    """Weights of a public size: from the user's checkpoint folder, else from their public repository."""
    stem = plain_name(name)
    paths = [checkpoint_folder() / f"{stem}{suffix}" for suffix in (".safetensors", ".pt", "")]
    for path in paths:
        if path.exists():
            return _read(path)
    ways, reason = f"Give them with --checkpoint PATH, or put them at {paths[0]} (or .pt, or a diffusers folder)", ""
    if stem in PUBLIC_HOMES:
        try:
            return _read_hub(PUBLIC_HOMES[stem], download=download)
        except CheckpointError as error:
            ways, reason = f"{ways}, or fetch {PUBLIC_HOMES[stem]} with --download", f": {error.message}"
    raise CheckpointError(f"no weights found for {name}{reason}", hint=f"{ways}.")


def _read(path: Path) -> Found:
    return Found(read_weights(path), str(path.resolve()))


def _read_hub(hub_id: str, *, download: bool) -> Found:
    return Found(read_weights(_hub_folder(hub_id, download=download)), hub_id, hub_id in PUBLIC_HOMES.values())


def is_name(name: str) -> bool:
    """Whether ``name`` is a registry name, not a path or a hub id."""
    return name in EMBEDDED or named_sizes(name) is not None


def _looks_like_hub_id(name: str) -> bool:
    parts = name.split("/")
    is_file = name.startswith((".", "~")) or Path(name).suffix.lower() in (*SAFETENSORS, *PICKLES)
    return named_sizes(name) is None and len(parts) == 2 and all(parts) and not is_file


def _hub_folder(hub_id: str, *, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "diffusion_pytorch_model.safetensors", "transformer/*", "scheduler/*", "tokenizer/*"]
    for part in ("unet", "text_encoder", "vae"):  # other formats and precisions would double the download
        wanted += [f"{part}/*.json", f"{part}/diffusion_pytorch_model.safetensors", f"{part}/model.safetensors"]
    wanted += ["text_encoder/model-*-of-*.safetensors"]
    try:
        return Path(snapshot_download(hub_id, local_files_only=not download, allow_patterns=wanted))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{hub_id} is neither a path here nor in the local hub cache" if not download else f"{hub_id}: {error}",
            hint="Check the path, fetch it from the hub with --download, or give a file with --checkpoint.",
        ) from error
