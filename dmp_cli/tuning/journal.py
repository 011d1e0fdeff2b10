"""The trials of a search in a journal, which many processes share: Optuna proposes them, and says which are hopeless.

The journal is Optuna's own format, so that its tools read it too: one JSON object a line, appended under the system's
lock. Nothing in it is executed. A line that a killed process left half-written counts as not there.
"""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ..config import describe_changes
from ..errors import ConfigError
from ..runtime import randomness
from .journal_file import JournalFile
from .ranges import Range, Ranges

if TYPE_CHECKING:
    import optuna

_NAME, _ABOUT, _DONE, _REASON = "dmp tune", "search", "done: ", "reason"
_STARTUP = 5  # trials at random before the sampler has something to learn from
_FEWEST = 3  # finished trials that a median is taken of
_PATIENCE = 60.0  # seconds to wait for the journal's lock, which is held for milliseconds
_FAULTS = (KeyError, IndexError, AttributeError, TypeError, ValueError, ArithmeticError, AssertionError, RuntimeError)
RUNNING, COMPLETE, PRUNED, FAILED = "running", "complete", "pruned", "failed"


@dataclass(frozen=True)
class Trial:
    """One set of options, and what came of it. Trial 0 has the defaults."""

    number: int
    options: Mapping[str, Any]  # of the ranges alone; trial 0 has those whose default lies in its range
    state: str
    value: float | None = None  # what is minimised
    losses: Mapping[int, float] = field(default_factory=dict)  # held-out loss, by training step
    reason: str = ""  # why it was pruned or failed


class Journal:
    """The journal of one search. All methods may be called by many processes at the same time."""

    def __init__(
        self,
        path: Path,
        *,
        ranges: Ranges,
        defaults: Mapping[str, Any],
        seed: int,
        warmup: int,
        round_size: int | None = None,
    ) -> None:
        """``warmup`` is the training step before which no trial is pruned.

        ``round_size``: trials that are proposed and pruned by what earlier rounds came to; None: by all before.

        Raises:
            ConfigError: Optuna is not installed.
        """
        self.path, self.ranges, self.seed = Path(path), ranges, seed
        self._defaults, self._warmup, self._optuna = defaults, warmup, _import_optuna()
        self._round_size = round_size
        # Named as the files of an owner are: it is nothing of the folder's content.
        self._lock = FileLock(self.path.parent / ".owner-journal.lock", timeout=_PATIENCE)
        self._study: Any = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Context in which no other process changes the journal."""
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigError(f"{self.path} is locked by another process for more than a minute") from None
        except OSError as error:
            raise ConfigError(f"cannot lock {self.path}: {error.strerror or error}") from error
        try:
            yield
        finally:
            self._lock.release()

    def open(self, about: Mapping[str, Any]) -> None:
        """Begin a search, or join the one that is there. ``about`` says what was asked for, and of which inputs.

        Raises:
            ConfigError: the journal is of another search, or damaged.
        """
        about = json.loads(json.dumps(dict(about), default=str))
        with self.locked(), self._reading():
            storage = self._optuna.storages.JournalStorage(JournalFile(self.path))
            sampler = self._optuna.samplers.RandomSampler(seed=0)  # proposals have samplers of their own
            pruner = self._optuna.pruners.MedianPruner(n_startup_trials=_FEWEST, n_warmup_steps=self._warmup)
            how: dict[str, Any] = {"storage": storage, "sampler": sampler, "pruner": pruner}
            names = self._optuna.get_all_study_names(storage)
            if not names:
                self._study = self._optuna.create_study(study_name=_NAME, **how)
                self._study.set_user_attr(_ABOUT, about)
                return
            if _NAME in names:
                self._study = self._optuna.load_study(study_name=_NAME, **how)
            attributes = {} if self._study is None else self._study.user_attrs
            if self._study is not None and not attributes and not self._study.trials:  # killed before it said so
                self._study.set_user_attr(_ABOUT, about)
                return
            earlier = attributes.get(_ABOUT)
        if not isinstance(earlier, dict):
            raise ConfigError(f"{self.path} is a journal, but not of dmp tune", hint="Give another folder with -o.")
        changed = describe_changes(earlier, about)
        if changed:
            raise ConfigError(
                f"{self.path} is the journal of another search: {changed}",
                hint="Give another folder with -o, or replace this search with --force.",
            )

    def trials(self) -> list[Trial]:
        """All trials by their number. Raises ConfigError where one is none of these ranges."""
        with self._reading():
            return [self._read(frozen) for frozen in self._study.trials]

    def begin(self) -> Trial:
        """Propose the next trial and record it as running. To be called in :meth:`locked`."""
        with self._reading():
            trials = self._study.trials
            options = self._propose(trials)
            spread = {one.name: self._distribution(one) for one in self.ranges.free if one.name in options}
            running = self._optuna.trial.TrialState.RUNNING
            self._study.add_trial(self._optuna.trial.create_trial(state=running, params=options, distributions=spread))
            return self._read(self._study.trials[len(trials)])

    def report(self, number: int, step: int, loss: float) -> bool:
        """Record a held-out loss, once; whether that of most trials at the same step was lower."""
        with self.locked(), self._reading():
            trial = self._open_trial(number)
            if step not in self._study.trials[number].intermediate_values:
                trial.report(loss, step)
            return self._is_hopeless(number, trial)

    def finish(self, number: int, value: float) -> None:
        """Record the value of a trial that has run to its end."""
        with self.locked(), self._reading():
            self._study.tell(number, value)

    def give_up(self, number: int, *, state: str, reason: str) -> None:
        """Record that a trial was pruned or failed."""
        known = {PRUNED: self._optuna.trial.TrialState.PRUNED, FAILED: self._optuna.trial.TrialState.FAIL}
        with self.locked(), self._reading():
            self._open_trial(number).set_user_attr(_REASON, reason)
            self._study.tell(number, state=known[state])

    def mark(self, key: str) -> None:
        """Record that a part of the final is done."""
        with self.locked(), self._reading():
            self._study.set_user_attr(_DONE + key, True)

    def done(self) -> set[str]:
        """The parts of the final that are done."""
        with self._reading():
            return {key.removeprefix(_DONE) for key in self._study.user_attrs if key.startswith(_DONE)}

    def _propose(self, trials: Iterable[Any]) -> dict[str, Any]:
        """Options of the next trial: a function of the seed, of its number and of the trials before."""
        known = list(trials)
        if not known:
            return {one.name: self._defaults[one.name] for one in self.ranges.free if self._is_default_inside(one)}
        drawn = randomness.generator("tune", seed=self.seed, step=len(known)).integers(2**31)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # parts of Optuna that it calls experimental
            how: dict[str, Any] = {"seed": int(drawn), "n_startup_trials": _STARTUP, "constant_liar": True}
            memory = self._optuna.create_study(sampler=self._optuna.samplers.TPESampler(**how))
            memory.add_trials(known[: self.seen_by(len(known))])
            asked = memory.ask({one.name: self._distribution(one) for one in self.ranges.free})
        return dict(asked.params)

    def seen_by(self, number: int) -> int:
        """How many of the trials before this one it knows of: all of them, or those of earlier rounds."""
        return number if self._round_size is None else number - number % self._round_size

    def _is_hopeless(self, number: int, trial: Any) -> bool:
        """Whether most of the trials that this one knows of had a lower loss at the same step."""
        if self._round_size is None:
            return bool(trial.should_prune())
        memory = self._optuna.create_study(pruner=self._study.pruner)
        memory.add_trials(self._study.trials[: self.seen_by(number)])
        return bool(self._study.pruner.prune(memory, self._study.trials[number]))

    def _is_default_inside(self, one: Range) -> bool:
        return one.holds(self._defaults[one.name])

    def _distribution(self, one: Range) -> optuna.distributions.BaseDistribution:
        made = self._optuna.distributions
        if one.choices is not None:
            return made.CategoricalDistribution(one.choices)
        kind = made.IntDistribution if one.is_whole else made.FloatDistribution
        step = one.step if one.step is not None or not one.is_whole else 1
        return kind(one.low, one.high, log=one.log, step=step)

    def _open_trial(self, number: int) -> Any:
        """Optuna's handle of a running trial, which another process may have begun."""
        return self._optuna.trial.Trial(self._study, self._study.trials[number]._trial_id)

    def _read(self, frozen: Any) -> Trial:
        ranges = {one.name: one for one in self.ranges.free}
        strange = [name for name, value in frozen.params.items() if name not in ranges or not ranges[name].holds(value)]
        missing = frozen.number > 0 and ranges.keys() - frozen.params.keys()
        values = [*frozen.intermediate_values.values(), *([] if frozen.value is None else [frozen.value])]
        if strange or missing or not all(isinstance(value, float) and math.isfinite(value) for value in values):
            raise ValueError(f"trial {frozen.number} is none of these ranges")
        state = {"FAIL": FAILED}.get(frozen.state.name, frozen.state.name.lower())
        options = {one.name: frozen.params[one.name] for one in self.ranges.free if one.name in frozen.params}
        value = frozen.value if state == COMPLETE else None
        losses = dict(sorted(frozen.intermediate_values.items()))
        return Trial(frozen.number, options, state, value, losses, str(frozen.user_attrs.get(_REASON, "")))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Context in which what Optuna finds wrong with a record is the journal's damage."""
        try:
            yield
        except (*_FAULTS, self._optuna.exceptions.OptunaError) as error:
            told = str(error).split("\n")[0][:200] or type(error).__name__
            raise _damaged(self.path, told) from error


def _damaged(path: Path, told: str) -> ConfigError:
    hint = "Bring a sound copy back, or begin again with --force."
    return ConfigError(f"{path} is damaged, or was changed by something else: {told}", hint=hint)


def _import_optuna() -> Any:
    """Optuna, which says nothing by itself. Raises ConfigError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("dmp tune needs Optuna", hint="pip install 'dmp-cli[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
