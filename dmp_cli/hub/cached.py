"""A patch that is named as on the hub: found in the local cache, and fetched only where that is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..errors import PatchError
from .naming import HubName, read_name

PATCH_FILE = "patch.safetensors"


def find_patch(named: Path, *, download: bool) -> Path:
    """The file that ``named`` stands for: a path as it is, and ``user/name[@revision]`` as a file of the hub's cache.

    The cache is looked at first. The hub is asked, where ``download`` allows it, for what is not there, and for a
    revision that may have moved, such as a branch that is named.

    Raises:
        PatchError: it is not in the cache and may not or cannot be fetched, or the repository holds no patch.
    """
    name = read_name(named.as_posix())
    if name is None:
        return named
    moves = name.revision is not None and not name.is_pinned
    found = None if download and moves else _find_cached(name)
    if found is None and download:
        found = _fetch(name)
    if found is None:
        raise PatchError(
            f"{named} is neither a file here nor a patch in the local hub cache",
            hint="Check the path, or fetch it from the hub with --download.",
        )
    return found


def _find_cached(name: HubName) -> Path | None:
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        usual = try_to_load_from_cache(name.repo, PATCH_FILE, revision=name.revision)
        if isinstance(usual, str):
            return Path(usual)
        folder = Path(
            snapshot_download(name.repo, revision=name.revision, allow_patterns="*.safetensors", local_files_only=True)
        )
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    chosen = _choose(path.name for path in folder.glob("*.safetensors"))
    return None if chosen is None else folder / chosen


def _fetch(name: HubName) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    from .talking import explaining_hub

    with explaining_hub(f"{name.repo}@{name.revision}" if name.revision else name.repo, PatchError):
        listed = HfApi().model_info(name.repo, revision=name.revision).siblings or ()
        chosen = _choose(file.rfilename for file in listed)
        if chosen is None:
            raise PatchError(
                f"{name.repo} on the hub holds no patch: neither {PATCH_FILE} nor one single .safetensors file",
                hint="Check its name, or fetch the file yourself and give its path.",
            )
        return Path(hf_hub_download(name.repo, chosen, revision=name.revision))


def _choose(names: Iterable[str]) -> str | None:
    """The patch among the files of a repository: by its usual name, else the only one there is."""
    found = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    if PATCH_FILE in found:
        return PATCH_FILE
    return found[0] if len(found) == 1 else None
