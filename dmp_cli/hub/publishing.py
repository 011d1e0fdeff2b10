"""Pushes a patch to the hub: its file, its card and its pictures, in one commit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from ..config import PatchRecord
from ..errors import ConfigError
from ..storage import read_header
from .cached import PATCH_FILE
from .card import GATES_FILE, GRID_FILE, Known, build_card
from .naming import read_name
from .talking import explaining_hub


class Pushed(NamedTuple):
    """What came of it."""

    repo: str
    revision: str  # the commit: repo@revision names exactly these files
    url: str


def files_of(patch: Path, record: PatchRecord, known: Known, *, to: str) -> dict[str, Path | bytes]:
    """What is pushed, by its name in the repository ``to``: paths of files here, or bytes.

    Raises:
        ConfigError: ``to`` is no name of a repository.
    """
    learnt = sum(math.prod(shape) for shape in read_header(patch).shapes.values())
    pictures = {GRID_FILE: known.grid, GATES_FILE: known.gates}
    return {
        PATCH_FILE: patch,
        "README.md": build_card(record, known, repo=_checked(to), learnt=learnt).encode(),
        **{name: picture for name, picture in pictures.items() if picture is not None},
    }


def push(
    patch: Path,
    record: PatchRecord,
    known: Known,
    *,
    to: str,
    private: bool = False,
    message: str | None = None,
    token: str | None = None,
) -> Pushed:
    """Push the patch in the file ``patch`` into the repository ``to``, which is made where there is none.

    Args:
        record: what the file says of itself, as ``patching.read_record`` reads it.
        known: its licence, and what else the card says.
        to: ``user/name``.
        private: whether a repository that is made is shown to its owner only.
        message: of the commit.
        token: the user's token; None: the one that ``hf auth login`` has kept, or HF_TOKEN.

    Raises:
        ConfigError: ``to`` is no name of a repository.
        DMPError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = files_of(patch, record, known, to=to)
    added = [CommitOperationAdd(name, str(it) if isinstance(it, Path) else it) for name, it in files.items()]
    with explaining_hub(to):
        api = HfApi(token=token)
        api.create_repo(to, private=private or None, exist_ok=True)
        steps = (record.training or {}).get("steps_done", 0)
        made = api.create_commit(to, added, commit_message=message or f"A patch after {steps:,} steps")
        return Pushed(to, made.oid, made.commit_url)


def _checked(to: str) -> str:
    name = read_name(to) if not Path(to).exists() else None
    if name is None or name.revision is not None:
        raise ConfigError(f"{to} is no name on the hub", hint="Give it as user/name.")
    return name.repo
