"""A patch as peft and diffusers keep things: ``Patch.from_pretrained`` and ``patch.save_pretrained``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from .prompts import Patch

FILE = "patch.safetensors"  # in a folder, such as that of a run


class Pretrained:
    """What a patch can do with files."""

    @staticmethod
    def from_pretrained(path: str | Path) -> Patch:
        """Read a patch: a file, or a folder with ``patch.safetensors`` in it, such as that of a run.

        Raises:
            PatchError: there is none, or it is damaged; see :func:`load_patch`.
        """
        from .file import load_patch

        path = Path(path)
        return load_patch(path / FILE if path.is_dir() else path)

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
