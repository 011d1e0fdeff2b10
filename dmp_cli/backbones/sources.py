"""Find a backbone's weights: an embedded file, a path, the user's checkpoint folder, or the hub's local cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..errors import CheckpointError, ConfigError
from ..storage import PICKLES, SAFETENSORS, Weights, home_folder, read_weights
from .hub_files import CONFIGS, needed_files
from .names import PUBLIC_HOMES, named_sizes, plain_name
from .original_sd import converted

VOCABULARIES = ("vocab.json", "tokenizer.json")  # files of a tokenizer of CLIP
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
    return Found(
        converted(read_weights(path)), os.path.abspath(path)
    )  # the path that was given, not what a link leads to


def _read_hub(hub_id: str, *, download: bool) -> Found:
    return Found(read_weights(_hub_folder(hub_id, download=download)), hub_id, hub_id in PUBLIC_HOMES.values())


def place_of(name: str, checkpoint: Path | None) -> Path | None:
    """Where :func:`find_weights` would find weights on this machine, without reading them; None: only it can tell."""
    if checkpoint is not None:
        return Path(checkpoint)
    if name in EMBEDDED or Path(name).exists():
        return EMBEDDED.get(name, Path(name))
    stem, hub_id = plain_name(name), name if _looks_like_hub_id(name) else None
    if named_sizes(name) is not None:
        paths = [checkpoint_folder() / f"{stem}{suffix}" for suffix in (".safetensors", ".pt", "")]
        found = next((path for path in paths if path.exists()), None)
        if found is not None:
            return found
        hub_id = PUBLIC_HOMES.get(stem)
    try:
        return None if hub_id is None else _hub_folder(hub_id, download=False)
    except CheckpointError:
        return None


def is_name(name: str) -> bool:
    """Whether ``name`` is a registry name, not a path or a hub id."""
    return name in EMBEDDED or named_sizes(name) is not None


def _looks_like_hub_id(name: str) -> bool:
    parts = name.split("/")
    is_file = name.startswith((".", "~")) or Path(name).suffix.lower() in (*SAFETENSORS, *PICKLES)
    return named_sizes(name) is None and len(parts) == 2 and all(parts) and not is_file


def cached_folder(hub_id: str, inner: str) -> Path | None:
    """The folder ``inner`` of a tokenizer in the hub's local cache; None: it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(hub_id, f"{inner}/{name}".lstrip("/")) for name in VOCABULARIES)
    return next((Path(path).parent for path in found if isinstance(path, str)), None)


def _hub_folder(hub_id: str, *, download: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        if not download:
            return Path(snapshot_download(hub_id, local_files_only=True, allow_patterns=CONFIGS))
        listed = HfApi().model_info(hub_id).siblings or ()
        wanted = needed_files(file.rfilename for file in listed)
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{hub_id} is neither a path here nor in the local hub cache" if not download else f"{hub_id}: {error}",
            hint="Check the path, fetch it from the hub with --download, or give a file with --checkpoint.",
        ) from error
