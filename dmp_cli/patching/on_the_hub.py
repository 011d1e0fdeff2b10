"""A patch on the hub, as diffusers has it: ``patch.push_to_hub``; and where the backbone of a patch is there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..config import PatchRecord

if TYPE_CHECKING:
    from ..hub import Pushed
    from .prompts import Patch


class OnTheHub:
    """What a patch can do with the hub."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        license: str,
        base_model: str | None = None,
        grid: bytes | None = None,
        gates: bytes | None = None,
        report: dict[str, Any] | None = None,
        private: bool = False,
        commit_message: str | None = None,
        token: str | None = None,
    ) -> Pushed:
        """Push the patch as it is now, with a card made from what it says of itself, as ``dmp push`` does.

        Args:
            repo_id: ``user/name``; the repository is made where there is none.
            license: as the hub writes it, such as ``apache-2.0``.
            base_model: the backbone's repository, which the card links to; None: where it came from, if that is known.
            grid: a PNG of samples for the card.
            gates: a PNG of the gate's weights for it.
            report: the ``report.json`` of an evaluation, whose scores it shows.
            private: whether a repository that is made is shown to its owner only.
            token: the user's token; None: that of ``hf auth login``, or HF_TOKEN.

        Raises:
            ConfigError: ``repo_id`` or ``license`` is no such name.
            PatchError: the patch does not know its backbone.
            DMPError: the hub cannot be reached, or refuses.
        """
        from ..hub import Known, push
        from .file import read_record, save_patch

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "patch.safetensors"
            save_patch(file, cast("Patch", self))
            record = read_record(file)
            known = Known(license, base_model or base_model_of(record), grid, gates=gates, report=report)
            return push(file, record, known, to=repo_id, private=private, message=commit_message, token=token)


def base_model_of(record: PatchRecord) -> str | None:
    """The repository on the hub that the backbone came from, as far as its record says."""
    from ..backbones import public_home
    from ..hub import pinned_name, read_name

    backbone = record.backbone
    cached = pinned_name(f"{backbone.source}/file") or pinned_name(backbone.source)
    if cached is not None:
        return cached.partition("@")[0]
    home = None if backbone.name is None else public_home(backbone.name)
    named = None if Path(backbone.source).is_absolute() else read_name(backbone.source)
    return home or (named.repo if named is not None else None)
