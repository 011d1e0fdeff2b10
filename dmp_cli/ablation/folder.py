"""The folder of one ablation: records what was asked for and on which inputs, and which commands are done."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..config import describe_changes
from ..errors import ConfigError
from ..storage import clear_owned, read_json, refuse_existing, remove_partials, write_json
from .plan import Plan

_PLACES = ("folder", "data", "reference", "backbone")  # paths; the inputs say what lies there
_FREE = "seeds"  # may change: seeds can be added later
_ALLOWED = "grey"  # a permission, which changes nothing that is made


class AblationFolder:
    """The records of an ablation, beside its runs, samples and scores.

    ``inputs`` are fingerprints and digests of data, reference, backbone, codec and text encoder. They identify what is
    compared. Paths do not, so the folder and the inputs can be moved and renamed.
    """

    def __init__(self, plan: Plan, inputs: Mapping[str, Any]) -> None:
        asked = {key: value for key, value in asdict(plan).items() if key not in (*_PLACES, _FREE, _ALLOWED)}
        self._about = json.loads(json.dumps({**asked, "inputs": dict(inputs)}, default=str))
        self.plan = plan
        self._about_file, self._done_file = plan.folder / "ablation.json", plan.folder / "done.json"

    def claim(self, *, force: bool) -> None:
        """Take the folder. An ablation of the same inputs with the same settings is continued.

        Raises:
            ConfigError: the folder holds anything else, or ``force`` would remove the data.
        """
        if force and self._about_file.exists():  # never remove a folder that is not an ablation
            self._remove()
        earlier = self._read(self._about_file, dict)
        if earlier is None:
            refuse_existing(self.plan.folder, force=False)
        else:
            self._check_same({key: value for key, value in earlier.items() if key != _FREE})
        write_json(self._about_file, {**self._about, _FREE: len(self.plan.seeds)})
        remove_partials(self.plan.folder)

    def _remove(self) -> None:
        own = self.plan.folder.resolve()
        inside = [path for path in (self.plan.data, self.plan.reference) if own in path.resolve().parents]
        if any(path != self.plan.digits for path in inside):
            raise ConfigError(
                f"--force would remove {inside[0]}, which lies in {self.plan.folder}", hint="Move it to another folder."
            )
        clear_owned(own)

    def _check_same(self, earlier: dict[str, Any]) -> None:
        changed = describe_changes(earlier, self._about)
        if changed:
            raise ConfigError(
                f"{self.plan.folder} holds an ablation with other settings: {changed}",
                hint="Give another folder with -o, or replace this one with --force.",
            )

    def commands(self) -> Iterator[tuple[list[str], bool]]:
        """Yield every command in order, and whether it is done. Asking for the next command marks this one as done."""
        done: list[str] = self._read(self._done_file, list) or []
        for command, key in zip(self.plan.commands(), self._keys(), strict=True):
            yield command, key in done
            if key not in done:
                done.append(key)
                write_json(self._done_file, done)

    def _keys(self) -> list[str]:
        """One key for each command, which does not depend on where the folder and the inputs lie."""
        plain = Path("reference").with_suffix(self.plan.reference.suffix)
        moved = replace(self.plan, folder=Path("."), data=Path("data"), reference=plain, backbone=(), grey=False)
        return [shlex.join(command) for command in moved.commands()]

    def _read(self, path: Path, kind: type[dict[str, Any]] | type[list[str]]) -> Any:
        hint = "Give another folder with -o."
        try:
            content = read_json(path, paths=True) if path.exists() else None
        except ConfigError as error:
            raise ConfigError(error.message, hint=hint) from error
        known = content is None or (isinstance(content, kind) and all(isinstance(name, str) for name in content))
        if not known:
            raise ConfigError(f"{path} was not written by dmp ablate", hint=hint)
        return content
