"""One of the processes that share a search: takes trials nobody works on, then parts of the final."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from ...errors import ConfigError
from ...tuning import FAILED, PRUNED, RUNNING, Journal, Trial, Tuning, read_value
from ..console import Printer
from ..in_process import Onlooker, in_shell, run_inside
from .planning import check_options

_PAUSE = 0.5  # seconds between two looks at what others do


class Watch(Onlooker):
    """Records the held-out losses of a trial in the journal, and ends it where most others did better."""

    def __init__(self, journal: Journal, number: int, *, prunes: bool) -> None:
        self.journal, self.number, self.prunes = journal, number, prunes
        self.pruned = ""  # why the trial was ended

    def judge(self, step: int, loss: float) -> str:
        if not math.isfinite(loss):
            self.diverged = f"the held-out loss of step {step} is not finite"
            return self.diverged
        is_worse = self.journal.report(self.number, step, loss)
        self.pruned = f"the held-out loss {loss:.6f} of step {step} is worse than that of most trials"
        self.pruned = self.pruned if is_worse and self.prunes else ""
        return self.pruned


class Worker:
    """Works on a search until nothing is left that no other process works on."""

    def __init__(self, plan: Tuning, journal: Journal, printer: Printer, dmp: Any, *, waits: bool = False) -> None:
        """``dmp`` is the root command, ``ctx.find_root().command``; ``waits``: stays while others do the rest."""
        self.plan, self.journal, self.printer, self.dmp, self.waits = plan, journal, printer, dmp, waits
        self.elsewhere: list[str] = []  # what other processes work on, as they were last seen

    def search(self) -> bool:
        """Work on trials; whether all of them are done."""
        with self.printer.progress("trials", self.plan.trials) as advance:
            while True:
                with self._claim() as trial:
                    if trial is not None:
                        self._run(trial)
                if trial is None:
                    if not self.elsewhere or not (self.waits or self._is_between_rounds()):
                        return not self.elsewhere
                    time.sleep(_PAUSE)
                advance(sum(known.state != RUNNING for known in self.journal.trials()), "")

    def final(self, winner: Trial) -> bool:
        """Train winner and defaults from the seeds of the final; whether all of it is done."""
        parts: list[tuple[str, list[list[str]]]] = []
        options = self.journal.trials()[0].options
        for seed in self.plan.final_seeds:
            for number, given in ((0, options), (winner.number, winner.options)):
                parts.append((self.plan.name(number, seed), self.plan.final_commands(number, given, seed)))
        if not self._work_on(parts):
            return False
        scores = [
            (f"scores-{winner.number}-{seed}", self.plan.final_scores(winner.number, seed))
            for seed in self.plan.final_seeds
        ]
        return self._work_on([part for part in scores if part[1]])

    def _work_on(self, parts: list[tuple[str, list[list[str]]]]) -> bool:
        """Work on the parts that are left, until all are done or others work on the rest; whether all are done.

        Whoever finishes the last one looks once more afterwards, so that somebody always finds all of them done.
        """
        with self.printer.progress("final", len(parts)) as advance:
            while True:
                self.elsewhere, worked = [], False
                for key, commands in parts:
                    worked = self._work_on_one(key, commands) or worked
                    advance(len(self.journal.done() & {key for key, _ in parts}), "")
                if self.journal.done() >= {key for key, _ in parts}:
                    return True
                if not worked:
                    if not self.waits:
                        return False
                    time.sleep(_PAUSE)

    def _work_on_one(self, key: str, commands: list[list[str]]) -> bool:
        """Do a part of the final; whether there was something to do, and nobody else did it."""
        if key in self.journal.done():
            return False
        with self._owning(f"-final-{key}") as is_ours:
            if not is_ours or key in self.journal.done():
                return False
            for command in commands:
                self._type(command)
            self.journal.mark(key)
        return True

    @contextlib.contextmanager
    def _claim(self) -> Iterator[Trial | None]:
        """Yields a trial that only this process works on: a running one that was left, or the next one; None: none."""
        self.elsewhere = []
        with contextlib.ExitStack() as held:
            with self.journal.locked():
                trial = self._choose(held)
            yield trial

    def _choose(self, held: contextlib.ExitStack) -> Trial | None:
        trials = self.journal.trials()
        for trial in trials:
            if trial.state == RUNNING and held.enter_context(self._owning(f"-trial-{trial.number}")):
                return trial
        if len(trials) >= self.plan.trials or self._is_between_rounds():
            return None
        if not held.enter_context(self._owning(f"-trial-{len(trials)}")):
            return None
        return self.journal.begin()

    @contextlib.contextmanager
    def _owning(self, part: str) -> Iterator[bool]:
        """Yields whether this process alone works on a part of the search for as long as the context lasts."""
        from ...storage import own

        with contextlib.ExitStack() as held:
            try:
                held.enter_context(own(self.plan.folder, command="dmp tune", part=part))
            except ConfigError as error:
                self.elsewhere.append(error.message)
                yield False
                return
            yield True

    def _is_between_rounds(self) -> bool:
        """Whether the next trial has to wait for one of an earlier round, which another process works on."""
        trials = self.journal.trials()
        if self.plan.round_size is None or len(trials) >= self.plan.trials:
            return False
        return any(trial.state == RUNNING for trial in trials[: self.journal.seen_by(len(trials))])

    def _run(self, trial: Trial) -> None:
        told = ", ".join(f"{name} {value}" for name, value in trial.options.items())
        self.printer.note(f"trial {trial.number}: {'the defaults' if trial.number == 0 else told}")
        try:
            check_options({**self.plan.ranges.fixed, **trial.options}, None)
        except ConfigError as error:
            self._give_up(trial, FAILED, error.message)
            return
        watch = Watch(self.journal, trial.number, prunes=self.plan.prune and trial.number > 0)
        for command in self.plan.trial_commands(trial.number, trial.options):
            try:
                self._type(command, watch)
            except typer.Exit:
                if watch.diverged is None:
                    raise
            if watch.diverged is not None:
                self._give_up(trial, FAILED, watch.diverged)
                return
            if watch.pruned:
                self._give_up(trial, PRUNED, watch.pruned)
                return
        losses = self.journal.trials()[trial.number].losses
        self.journal.finish(trial.number, read_value(self.plan, trial.number, losses))

    def _give_up(self, trial: Trial, state: str, reason: str) -> None:
        self.journal.give_up(trial.number, state=state, reason=reason)
        self.printer.note(f"trial {trial.number} {state}: {reason}")

    def _type(self, command: list[str], watch: Watch | None = None) -> None:
        self.printer.note(in_shell(command))
        run_inside(command, self.dmp, onlooker=watch if command[0] == "train" else None)


def claim_folder(
    plan: Tuning, *, force: bool, inputs: list[Path], prepare: Callable[[], None], journal: Journal, about: Any
) -> None:
    """Begin a search in the folder, or join the one that is there; ``prepare`` is called once, before the first trial.

    Raises:
        ConfigError: the folder holds anything else, a search with other settings, or ``force`` would remove an input.
    """
    from ...storage import check_unowned, clear_owned, make_folder, refuse_existing

    own_path = plan.folder.resolve()
    if force and plan.journal.exists():  # a folder of another kind is never removed
        for given in inputs:
            if own_path in (given.resolve(), *given.resolve().parents):
                raise ConfigError(
                    f"--force would remove {given}, which lies in {plan.folder}", hint="Move it to another folder."
                )
        check_unowned(plan.folder)
        clear_owned(plan.folder)
    try:
        if not plan.journal.exists():
            refuse_existing(plan.folder, force=False)
    except ConfigError:
        if not plan.journal.exists():  # else another process has begun the same search meanwhile
            raise
    make_folder(plan.folder)
    with journal.locked():
        journal.open(about)
        prepare()
