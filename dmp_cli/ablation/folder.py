"""The folder of one ablation: records what was asked for and on which inputs, and which commands are done."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..improvement import CommandFolder, is_whole
from ..jobs import Job
from .plan import Plan

_PLACES = ("folder", "data", "reference", "backbone")  # paths; the inputs say what lies there
_FREE = "seeds"  # may change: seeds can be added later
_ALLOWED = "grey"  # a permission, which changes nothing that is made


class AblationFolder:
    """The records of an ablation, beside its runs, samples and scores.

    ``inputs`` are fingerprints and digests of data, reference, backbone, codec and text encoder. They identify what is
    compared. Paths do not, so the folder and the inputs can be moved and renamed.
    """

    def __init__(self, plan: Plan, inputs: Mapping[str, Any], *, threads: int | None = None) -> None:
        """``threads`` of all commands; None: a folder of an earlier version, or nobody has said how many."""
        asked = {key: value for key, value in asdict(plan).items() if key not in (*_PLACES, _ALLOWED)}
        if all(arm.own_samples is None for arm in plan.arms):
            del asked["scales"]  # which change nothing then, and which earlier versions do not know
        about = {**asked, "inputs": dict(inputs), _FREE: len(plan.seeds)}
        about |= {} if threads is None else {"threads": threads}
        self._folder = CommandFolder(plan.folder, about=about, noun="ablation", free=(_FREE,))
        self.plan = plan

    def claim(self, *, force: bool) -> None:
        """Take the folder. An ablation of the same inputs with the same settings is continued.

        Raises:
            ConfigError: the folder holds anything else, or ``force`` would remove the data.
        """
        self._folder.claim(force=force, inputs=self._inputs)

    @property
    def _inputs(self) -> list[Path]:
        return [path for path in (self.plan.data, self.plan.reference) if path != self.plan.digits]

    def check(self, *, force: bool) -> int:
        """Raise as :meth:`claim` would, and write nothing; how many of its commands are done already."""
        self._folder.check(force=force, inputs=self._inputs)
        done = [] if force else self._folder.done()
        planned = zip(self._keys(), self.plan.commands(), strict=True)
        return sum(key in done and is_whole(command) for key, command in planned)

    def jobs(self) -> list[Job]:
        """Every command in order, and which others it waits for. Each is marked as done by itself."""
        return self._folder.jobs(
            self.plan.commands(),
            self._keys(),
            typed=lambda number: self.plan.commands()[number],  # anew: scores of one command may fill in the next
            also_reads=self.plan.chosen_by(),
        )

    def _keys(self) -> list[str]:
        """One key for each command, which does not depend on where the folder and the inputs lie."""
        plain = Path("reference").with_suffix(self.plan.reference.suffix)
        moved = replace(self.plan, folder=Path("."), data=Path("data"), reference=plain, backbone=(), grey=False)
        return [shlex.join(command) for command in moved.commands()]
