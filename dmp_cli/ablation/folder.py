"""The folder one ``ablate`` command owns: what was asked for, of which inputs, and what of it is done."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..storage import refuse_existing, remove_partials, write_json
from .plan import Plan

_PLACES = ("folder", "data", "reference", "backbone")  # where things lie; what they are is in the inputs
_FREE = "seeds"  # more of them may be added


class AblationFolder:
    """What lies in a plan's folder beside the runs, samples and scores.

    ``inputs``: fingerprints and digests of data, reference, backbone, codec and text encoder. They say what is
    compared; paths do not, so that a folder can be moved and named in any way.
    """

    def __init__(self, plan: Plan, inputs: Mapping[str, Any]) -> None:
        asked = {key: value for key, value in asdict(plan).items() if key not in (*_PLACES, _FREE)}
        self._about = json.loads(json.dumps({**asked, "inputs": dict(inputs)}, default=str))
        self.plan = plan
        self._about_file, self._done_file = plan.folder / "ablation.json", plan.folder / "done.json"

    def claim(self, *, force: bool) -> None:
        """Take the folder: an ablation of the same inputs, asked for in the same way, is continued.

        Raises:
            ConfigError: it holds anything else, or ``force`` would remove the data.
        """
        if force and self._about_file.exists():  # never what is no ablation
            self._remove()
        earlier = self._read(self._about_file)
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
            raise ConfigError(f"--force would remove {inside[0]} with {self.plan.folder}", hint="Move it elsewhere.")
        shutil.rmtree(own, ignore_errors=True)

    def _check_same(self, earlier: dict[str, Any]) -> None:
        changed = sorted(key for key in {*earlier, *self._about} if earlier.get(key) != self._about.get(key))
        if "inputs" in changed and isinstance(earlier.get("inputs"), dict):
            ours, theirs = self._about["inputs"], earlier["inputs"]
            changed.remove("inputs")
            changed += sorted(f"the {key}" for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
        if changed:
            raise ConfigError(
                f"{self.plan.folder} holds another ablation ({', '.join(changed)} differ)",
                hint="Give another -o, or replace it with --force.",
            )

    def commands(self) -> Iterator[tuple[list[str], bool]]:
        """Every command in order, and whether it is done; once the next is asked for, the one before counts as done."""
        done: list[str] = self._read(self._done_file) or []
        for command, key in zip(self.plan.commands(), self._keys(), strict=True):
            yield command, key in done
            if key not in done:
                done.append(key)
                write_json(self._done_file, done)

    def _keys(self) -> list[str]:
        """The commands as they are wherever things lie."""
        plain = Path("reference").with_suffix(self.plan.reference.suffix)
        moved = replace(self.plan, folder=Path("."), data=Path("data"), reference=plain, backbone=())
        return [shlex.join(command) for command in moved.commands()]

    def _read(self, path: Path) -> Any:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise ConfigError(f"cannot read {path}: {error}", hint="Give another -o.") from error
