"""Many processes of one ``dmp train`` on this machine, and the notes that each of them keeps of its steps.

They are forked from one process that has imported what training needs, so that they share that memory: 64 processes
that import torch one by one need more than this machine has. Each runs the whole command, in the environment that
torchrun sets.

    python -m tests.runtime.crowd SPECS     the process that the others are forked from; SPECS are crowds as JSON
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .ports import free_port

_SENT = ("all_reduce", "broadcast", "all_gather")  # of torch.distributed: all that runtime/distributed.py sends by
_HEAVY = {"torchvision", "diffusers", "transformers", "peft", "pandas", "scipy", "sklearn", "matplotlib", "cleanfid"}
_LIMIT = 600  # seconds


@dataclass
class Crowd:
    """What to start, where its notes go, and how it ended."""

    folder: Path  # of the notes, a new one
    size: int
    options: list[str]  # of dmp train
    dies: list[int] | None = None  # rank that is killed, and the step in whose reduction
    home: Path | None = None  # their DMP_HOME; None: beside the notes
    port: int = 0
    codes: list[int] = field(default_factory=list)  # how each ended: an exit code, or minus a signal

    def said(self, rank: int) -> str:
        """All that process ``rank`` has printed."""
        return (self.folder / f"said-{rank}.txt").read_text()

    def notes(self, rank: int) -> list[dict[str, Any]]:
        """The notes of process ``rank``, one of each step, in order."""
        return [json.loads(line) for line in (self.folder / f"notes-{rank}.jsonl").read_text().splitlines()]

    def saves(self) -> list[float]:
        """The seconds that each save took; the first process does them."""
        path = self.folder / "saves.txt"
        return [float(line) for line in path.read_text().splitlines()] if path.exists() else []

    def order(self) -> dict[int, list[int]]:
        """Of each step the images of the global batch, in the order of their places, by index in the data."""
        found: dict[int, list[int]] = {}
        for rank in range(self.size):
            for note in self.notes(rank):
                found.setdefault(note["step"], []).extend(note["images"])
        return found


def run_crowds(*crowds: Crowd) -> None:
    """Run one crowd after the other, all forked from the same process; each when the last of those before has ended."""
    for crowd in crowds:
        crowd.folder.mkdir()
        crowd.port = free_port()
        crowd.home = crowd.home or crowd.folder
    spec = json.dumps([asdict(crowd) for crowd in crowds], default=str)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", __name__, spec]
    mother = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said, _ = mother.communicate(timeout=_LIMIT)
    finally:
        if mother.poll() is None:  # a crowd that waits for ever ends with this test
            os.killpg(mother.pid, signal.SIGKILL)
    for crowd, codes in zip(crowds, json.loads(said), strict=True):
        crowd.codes = codes


class Notes:
    """What one process sends, trains on and takes of memory, written line by line: it may be killed."""

    def __init__(self, crowd: Crowd, rank: int, begun: float) -> None:
        self.crowd, self.rank, self.begun = crowd, rank, begun
        self.path = crowd.folder / f"notes-{rank}.jsonl"
        self.sent: dict[str, list[int]] = {name: [] for name in _SENT}
        self.step: int | None = None  # that is being done

    def listen(self) -> None:
        """Note each message of this process, each step and each save from now on."""
        import torch.distributed as dist
        from torch.distributed import distributed_c10d

        from dmp_cli.training.loop import TrainingLoop
        from dmp_cli.training.run_folder import RunFolder

        for name in _SENT:
            heard = self._hearing(name, getattr(dist, name))
            setattr(dist, name, heard)
            setattr(distributed_c10d, name, heard)  # where objects are sent from
        self._around(TrainingLoop, "advance", self._note_step)
        self._around(RunFolder, "save", self._note_save)

    def _around(self, owner: type, name: str, note: Callable[..., Any]) -> None:
        inner = getattr(owner, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            return note(inner, *arguments, **options)

        setattr(owner, name, noted)

    def _hearing(self, name: str, send: Callable[..., Any]) -> Callable[..., Any]:
        def heard(*arguments: Any, **options: Any) -> Any:
            tensor = arguments[1] if name == "all_gather" else arguments[0]  # behind the list for the result
            self.sent[name].append(tensor.numel() * tensor.element_size())
            if name == "all_reduce" and [self.rank, self.step] == self.crowd.dies:
                os.kill(os.getpid(), signal.SIGKILL)  # the others wait for its part already
            return send(*arguments, **options)

        return heard

    def _note_step(self, advance: Callable[..., Any], loop: Any, inputs: Any, **options: Any) -> Any:
        before, self.sent = self.sent, {name: [] for name in _SENT}
        self.step, start = loop.step, time.monotonic()
        terms = advance(loop, inputs, **options)
        note = {"step": self.step, "images": inputs.batch.indices.tolist(), "sent": self.sent, "before": before}
        note |= {"began": start - self.begun, "seconds": time.monotonic() - start}
        if loop.step % 4 == 0:
            note |= {"memory": memory(), "heavy": sorted(_HEAVY & {name.split(".")[0] for name in sys.modules})}
        with open(self.path, "a") as file:
            file.write(json.dumps(note) + "\n")
        self.sent, self.step = {name: [] for name in _SENT}, None
        return terms

    def _note_save(self, save: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        start = time.monotonic()
        save(*arguments, **options)
        with open(self.crowd.folder / "saves.txt", "a") as file:
            file.write(f"{time.monotonic() - start}\n")


def memory() -> dict[str, int]:
    """What this process takes, in MB: ``Rss`` all pages, ``Pss`` shared ones by parts, ``own`` its own alone."""
    found: dict[str, int] = {"own": 0}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, kib, _ = line.split()
        found["own"] += int(kib) if name.startswith("Private_") and "Huge" not in name else 0
        found |= {name[:-1]: int(kib)} if name in ("Rss:", "Pss:") else {}
    return {name: round(kib * 1024 / 1e6) for name, kib in found.items()}


def _import_what_training_needs() -> None:
    for name in ("torch._dynamo", *(f"dmp_cli.{of}" for of in ("cli", "commands.train.job", "training.trainer"))):
        importlib.import_module(name)  # torch's optimizers import the first


def _child(crowd: Crowd, rank: int, begun: float) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": crowd.size, "MASTER_PORT": crowd.port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    os.environ["DMP_HOME"] = str(crowd.home)
    said = os.open(crowd.folder / f"said-{rank}.txt", os.O_CREAT | os.O_WRONLY)
    os.dup2(said, 1)
    os.dup2(said, 2)
    Notes(crowd, rank, begun).listen()
    sys.argv = ["dmp", "train", *crowd.options]
    from dmp_cli.__main__ import main

    code = 70
    with contextlib.suppress(SystemExit):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
    sys.stdout.flush()
    os._exit(code)


def _fork_all(crowd: Crowd) -> list[int]:
    """Start all processes and wait for them: the exit code of each, or minus the signal that ended it."""
    begun = time.monotonic()
    pids = []
    for rank in range(crowd.size):
        pid = os.fork()
        if pid == 0:
            _child(crowd, rank, begun)
        pids.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def main() -> None:
    _import_what_training_needs()
    gc.collect()
    gc.freeze()  # else a collection writes to every page that they share
    crowds = [Crowd(**{**spec, "folder": Path(spec["folder"])}) for spec in json.loads(sys.argv[1])]
    print(json.dumps([_fork_all(crowd) for crowd in crowds]))


if __name__ == "__main__":
    main()
