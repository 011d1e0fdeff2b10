"""A patch as peft and diffusers keep things: ``Patch.from_pretrained`` and ``patch.save_pretrained``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..errors import ConfigError

if TYPE_CHECKING:
    from .prompts import Patch

FILE = "patch.safetensors"  # in a folder, such as that of a run


class Pretrained:
    """What a patch can do with files."""

    @staticmethod
    def from_pretrained(path: str | Path, *, revision: str | None = None, download: bool = False) -> Patch:
        """Read a patch: a file, a folder with ``patch.safetensors`` in it, such as that of a run, or ``user/name``.

        A name on the hub is looked for in the local cache. The hub itself is asked only with ``download``. A
        ``revision``, such as a commit, may stand in the name as well: ``user/name@revision``. A path that is here is
        always the path.

        Raises:
            ConfigError: a ``revision`` of something that is no name on the hub.
            PatchError: there is none, or it is damaged; see :func:`load_patch`.
            DMPError: the hub cannot be reached, or refuses.
        """
        from ..hub import find_patch
        from .file import load_patch

        path = Path(path)
        named = path if revision is None else _at_revision(path, revision)
        return load_patch(named / FILE if named.is_dir() else find_patch(named, download=download))

    def save_pretrained(self, path: str | Path) -> Path:
        """Write the patch into a folder, as ``patch.safetensors``, or to a path that ends in ``.safetensors``.

        Returns the path of the file.

        Raises:
            PatchError: the patch does not know its backbone; see :func:`save_patch`.
            DMPError: the disk is full or ``path`` cannot be written.
        """
        from .file import save_patch

        file = Path(path) if str(path).endswith(".safetensors") else Path(path) / FILE
        save_patch(file, cast("Patch", self))
        return file


def _at_revision(path: Path, revision: str) -> Path:
    """``user/name@revision``."""
    from ..hub import read_name

    name = read_name(path.as_posix())
    if name is None or name.revision is not None:
        raise ConfigError(f"revision={revision!r}: {path} is no user/name of the hub without a revision of its own")
    return Path(f"{name.repo}@{revision}")
