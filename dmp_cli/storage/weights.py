"""Reading weight files of other projects safely. Nothing is ever loaded by executing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError, DMPError
from .containers import find_weights_in, said_about, without_prefixes
from .diffusers_folder import open_diffusers
from .headers import read_header
from .limits import check_file
from .pickles import read_pickle
from .weight_names import PICKLES, SAFETENSORS

PATCH_NAMES = ("prompt_embeddings", "gate.weight", "gate.bias")  # the patch, in a checkpoint of the paper's authors
NOISE_NAME = "w_noise"  # another tensor of that patch, used in training only


@dataclass(frozen=True)
class Weights:
    """The content of a weight file or a diffusers folder."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]  # of a single safetensors file; else empty
    config: dict[str, Any] | None  # config.json of a diffusers folder; None for a single file
    scheduler: dict[str, Any] | None = field(default=None, kw_only=True)  # config of the pipeline's noise schedule
    pipeline: Path | None = field(default=None, kw_only=True)  # folder of the pipeline that the denoiser is part of
    path: Path
    patch: dict[str, Tensor] = field(default_factory=dict)  # the authors' patch, which is not in ``tensors`` then
    holds: tuple[str, ...] = ()  # other parts in the same file, under their own names: vae, clip or open_clip
    about: dict[str, Any] = field(default_factory=dict)  # what a training checkpoint says of itself: args, config, …


def read_weights(path: Path) -> Weights:
    """Read a ``.safetensors`` file, a torch pickle, or the diffusers folder of a denoiser or of a pipeline.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or of an unknown kind.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", hint="Check the path given as --backbone or --checkpoint.")
    if path.is_dir():
        return _read_diffusers(path)
    check_file(path, kind=CheckpointError)
    kind = _kind_of(path)
    if kind in SAFETENSORS:
        tensors, metadata = read_safetensors(path)
        return _of_file(tensors, metadata, path)
    if kind in PICKLES:
        content = read_pickle(path)
        return _of_file(find_weights_in(content, path), {}, path, about=said_about(content))
    raise CheckpointError(
        f"{path} is not a weight file: its name ends in none of {', '.join((*SAFETENSORS, *PICKLES))}",
        hint="Give a Meta-style DiT checkpoint (.pt), a .safetensors file or a diffusers folder.",
    )


def _kind_of(path: Path) -> str:
    """The suffix of the kind of file that ``path`` is, by its content; else the suffix of its name.

    A link of the hub's cache, of DVC or of git-annex may lead to a file whose name has no suffix.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError:
        start = b""
    if len(start) == 9 and start[8:] == b"{" and start[5:8] == bytes(3):  # the header's length, and its JSON
        return ".safetensors"
    if start[:4] == b"PK\x03\x04" or start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        return ".pt"
    return path.suffix.lower()


def read_safetensors(path: Path, *, kind: type[DMPError] = CheckpointError) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file. Raises ``kind`` when it cannot be read."""
    hint = "It was cut short or damaged, or is another kind of file; download or copy it again."
    header = read_header(path, kind=kind, hint=hint)
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in header.tensors}, header.metadata
    except (SafetensorError, OSError, AttributeError, TypeError) as error:  # the last two: types this torch lacks
        raise kind(f"{path} is not a readable safetensors file: {error}", hint=hint) from error


def _read_diffusers(folder: Path) -> Weights:
    path, config, files, scheduler, pipeline = open_diffusers(folder)
    tensors: dict[str, Tensor] = {}
    for file in files:
        safe = file.suffix in SAFETENSORS
        tensors |= read_safetensors(file)[0] if safe else find_weights_in(read_pickle(file), file)
    return Weights(tensors, {}, config, path, scheduler=scheduler, pipeline=pipeline)


def _of_file(
    tensors: Mapping[str, Tensor], metadata: dict[str, str], path: Path, *, about: dict[str, Any] | None = None
) -> Weights:
    own = without_prefixes(tensors)
    patch = {}
    if own.keys() >= set(PATCH_NAMES):  # one tensor of a patch alone is unexpected like any other tensor
        patch = {name: own.pop(name) for name in (*PATCH_NAMES, NOISE_NAME) if name in own}
    return Weights(own, metadata, None, path, patch=patch, about=about or {})
