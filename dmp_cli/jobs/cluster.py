"""A command as a job of a cluster, through submitit: Slurm, or processes that outlive this one ("local").

``FOLDER/jobs`` holds what submitit writes, ``jobs.json`` (which job does which command), and how each command ended.
Nothing of it is unpickled here. A call that begins while jobs of an earlier one run goes on with these.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from ..errors import ConfigError
from ..runtime import ask_to_end, thread_environment, tied
from ..storage import drop_owner, holder_of, read_object, write_json
from .cluster_file import ClusterSettings
from .graph import Job
from .processes import argv_of, environment_of_child, outcome_of
from .schedule import Outcome

_BETWEEN = {"local": 0.2}  # seconds between two looks at a job; 1 elsewhere
_LATE = 15.0  # seconds that a file of another machine may take to be seen here
_REQUEUES = 100  # times that a job which ran out of its time goes on
_LONGEST = {"local": 60 * 24 * 30}  # minutes of a job, where nothing is said; a day elsewhere


class Cluster:
    """Places in the queue of a cluster."""

    def __init__(self, settings: ClusterSettings, folder: Path, *, at_once: int | None) -> None:
        """``folder`` is for all that has to do with jobs; ``at_once``: how many are in the queue at most.

        Raises:
            ConfigError: submitit is not installed, or does not take the settings.
        """
        self.name, self.folder, self._room = settings.cluster, folder.absolute(), at_once or sys.maxsize
        self._threads, self._executor = thread_environment(), _executor_of(settings, self.folder)
        self._record = self.folder / "jobs.json"
        self._known: dict[str, Any] = read_object(self._record) if self._record.exists() else {}

    def free(self) -> bool:
        return self._room > 0

    def may_start(self, job: Job) -> bool:
        """Not while what a lost local job has begun still works here. (A cluster leaves nothing of a lost job.)"""
        if self.name != "local" or job.output is None or not job.output.is_dir() or self._earlier(job) is not None:
            return True
        return holder_of(job.output) is None

    def start(self, job: Job) -> ClusterJob:
        """Go on with the job of an earlier call that does this, or submit one."""
        self._room -= 1
        if (earlier := self._earlier(job)) is not None:
            return earlier
        if self.name != "local" and job.key in self._known and job.output is not None and job.output.is_dir():
            drop_owner(job.output)  # the cluster says that nobody works there any more
        how = self._how(job)
        how.unlink(missing_ok=True)
        with _importable():
            handle = self._executor.submit(Typed(argv_of(job.typed()), self._threads, str(how)))
        self._known[job.key] = str(handle.job_id)
        write_json(self._record, self._known)
        return ClusterJob(self, str(handle.job_id), handle, how)

    def back(self) -> None:
        """A place is free again."""
        self._room += 1

    def _earlier(self, job: Job) -> ClusterJob | None:
        """The job of an earlier call that does this, or has done it; None: there is none, or it was lost."""
        known, how = self._known.get(job.key), self._how(job)
        if not isinstance(known, str):
            return None
        handle = self._executor.job_class(folder=self._executor.folder, job_id=known)
        earlier = ClusterJob(self, known, handle, how)
        return earlier if _is_good(how) or (not how.exists() and not earlier.is_over()) else None

    def _how(self, job: Job) -> Path:
        """The file that says how the command of a job has ended."""
        return self.folder / f"{hashlib.sha256(job.key.encode()).hexdigest()[:16]}.json"


class ClusterJob:
    """One command in the queue, or at work."""

    def __init__(self, cluster: Cluster, identity: str, handle: Any, how: Path) -> None:
        self.where = f"{cluster.name} {identity}"
        self._cluster, self._identity, self._handle, self._how = cluster, identity, handle, how
        self._looked = self._over_since = 0.0
        self._state, self._stops = "", 0

    def poll(self) -> Outcome | None:
        now = time.monotonic()
        if now - self._looked < _BETWEEN.get(self._cluster.name, 1.0):
            return None
        self._looked = now
        outcome = self._read() if self._how.exists() else self._lost(now) if self.is_over() else None
        if outcome is not None:
            self._cluster.back()
        return outcome

    def remark(self) -> str:
        return self._state

    def is_over(self) -> bool:
        """Whether the cluster says that it has ended."""
        self._state = str(self._handle.state).lower()
        if self._cluster.name == "local":
            process = getattr(self._handle, "_process", None)
            over = not _is_controller(int(self._identity)) if process is None else process.poll() is not None
            self._state = "ended" if over else "running"
            return over
        return bool(self._handle.done())

    def stop(self) -> None:
        self._stops += 1
        if self._cluster.name == "local":  # its own cancel() leaves a second to save
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self._identity), signal.SIGTERM)
        elif self._stops == 1:
            self._handle.cancel(check=False)

    def kill(self) -> None:
        self.stop()

    def _read(self) -> Outcome:
        said = read_object(self._how)
        self._how.unlink(missing_ok=True)  # a command that is to be done again later is done again
        return outcome_of([str(line) for line in said.get("lines", [])], int(said["code"]))

    def _lost(self, now: float) -> Outcome | None:
        """What is said of a job that is over and has left nothing, once it had the time to be seen here."""
        self._over_since = self._over_since or now
        if now - self._over_since < (1.0 if self._cluster.name == "local" else _LATE):
            return None
        lost = f"its job {self._identity} was lost ({self._state}) and left no result"
        return Outcome(1, [lost, "The same command submits it again."])


class Typed:
    """What a job runs: the command, as a process that is asked to save when the job is."""

    def __init__(self, argv: Sequence[str], threads: Mapping[str, str], how: str) -> None:
        self.argv, self.threads, self.how = list(argv), dict(threads), how
        self._child: Any = None

    def __call__(self) -> int:
        """Run it, write how it ended, and return its exit code."""
        environment = environment_of_child(self.threads)
        tied(environment)
        self._child = subprocess.Popen(
            self.argv, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, frame: ask_to_end(self._child))
        lines: list[str] = []
        for line in self._child.stderr:
            lines = [*lines[-200:], line.decode("utf-8", "replace").rstrip()]
            print(lines[-1], file=sys.stderr, flush=True)  # the log of the job
        code = self._child.wait()
        write_json(Path(self.how), {"code": code, "lines": lines})
        return int(code)

    def checkpoint(self) -> Any:
        """The job runs out of its time, or makes room: let the command save, and go on in the next one."""
        from submitit.helpers import DelayedSubmission

        if self._child is not None:
            ask_to_end(self._child)
            self._child.wait()
        return DelayedSubmission(Typed(self.argv, self.threads, self.how))


def _is_good(how: Path) -> bool:
    """Whether a job has written that its command ended well, while nobody looked."""
    return how.exists() and read_object(how).get("code") == 0


def _executor_of(settings: ClusterSettings, folder: Path) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("--cluster needs submitit", hint="pip install 'dmp-cli[cluster]'") from error
    name = settings.cluster
    usual: dict[str, Any] = {"timeout_min": _LONGEST.get(name, 60 * 24), "name": "dmp"}
    if name == "local" and _has_gpu():
        usual["gpus_per_node"] = 1  # else its jobs see none
    try:
        executor = submitit.AutoExecutor(folder, cluster=name, **{f"{name}_max_num_timeout": _REQUEUES})
        executor.update_parameters(**{**usual, **settings.parameters})
    except (NameError, ValueError, AssertionError, TypeError, RuntimeError) as error:
        told = " ".join(str(error).split())[:300]
        raise ConfigError(f"{settings.told}: submitit refuses it: {told}") from error
    return executor._executor if hasattr(executor, "_executor") else executor


def _has_gpu() -> bool:
    import torch

    return torch.cuda.device_count() > 0


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Context in whose environment a job finds this very dmp: schedulers hand the environment on."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = environment_of_child({})["PYTHONPATH"]
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _is_controller(identity: int) -> bool:
    """Whether submitit's local process of this number still runs, and is no other one of the same number."""
    try:
        process = psutil.Process(identity)
        return process.status() != psutil.STATUS_ZOMBIE and "submitit.local._local" in process.cmdline()
    except psutil.Error:
        return False
