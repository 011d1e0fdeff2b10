"""Several processes that train together: their ranks, and the few messages that they exchange.

``torchrun``, ``accelerate launch`` or SLURM's ``srun`` starts them, and sets in the environment how many there are.
Each process computes its share of every global batch; the learnt weights are the same in all processes.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import ConfigError, DMPError, EndedAtOnce, StoppedError
from .faults import describe_fault
from .launchers import adopt_launcher

T = TypeVar("T")

_TIMEOUT = datetime.timedelta(hours=2)  # one process may build statistics or draw a grid while the others wait


class World:
    """All processes of one run, seen from one of them. With a single process no method communicates."""

    def __init__(self, *, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and prints for the user."""
        return self.rank == 0

    @contextlib.contextmanager
    def connected(self, device: torch.device) -> Iterator[World]:
        """Context in which the processes are connected: by gloo between CPUs, by NCCL between GPUs.

        The connection stays open afterwards, because gloo's threads sometimes abort a process while it is closed. End
        the process with :func:`leave`.

        Raises:
            DMPError: the processes cannot find each other.
        """
        if self.size == 1:
            yield self
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            if not dist.is_initialized():  # else an earlier context of this process left it open
                dist.init_process_group(backend, rank=self.rank, world_size=self.size, timeout=_TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise DMPError(
                f"the {self.size} processes of this run cannot find each other: {str(error).splitlines()[0]}",
                hint="Start them with torchrun, or set MASTER_ADDR and MASTER_PORT to those of the first process.",
            ) from error
        yield self
        with contextlib.suppress(RuntimeError):
            dist.barrier()  # no process ends while another still needs it

    @contextlib.contextmanager
    def speaking(self) -> Iterator[None]:
        """Context whose errors name their process, unless it is the first; only the first reports a stop by signal."""
        try:
            yield
        except EndedAtOnce as ended:
            ended.silent = not self.is_first
            raise
        except DMPError as error:
            if not self.is_first:
                error.message = f"process {self.rank}: {error.message}"
                error.silent = error.silent or isinstance(error, StoppedError)
            raise

    def own_device(self, name: str) -> str:
        """The name of this process' device: its own GPU for ``auto`` and ``cuda``, else ``name``."""
        if self.size == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        return f"cuda:{self.local_rank}"

    def share(self, count: int) -> range:
        """This process' part of range(count): as many numbers for each process, in the order of their ranks.

        Raises:
            ConfigError: the number of processes does not divide ``count``.
        """
        if count % self.size:
            raise ConfigError(
                f"--batch-size {count} cannot be shared by {self.size} processes",
                hint="Give a multiple of the number of processes.",
            )
        each = count // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def check_spread(self) -> None:
        """Raise ConfigError when there is only one process, so that weights cannot be spread over several."""
        if self.size == 1:
            raise ConfigError("--shard-backbone needs several processes", hint="Start them with torchrun.")

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, with one reduction of one buffer."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        with _reporting_lost_processes():
            dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, (size * n, ...), in the order of their ranks; each process gives n rows."""
        if self.size == 1:
            return rows
        found = rows.new_empty(self.size * len(rows), *rows.shape[1:])
        with _reporting_lost_processes():
            dist.all_gather(list(found.chunk(self.size)), rows.contiguous())
        return found

    def tell(self, make: Callable[[], T]) -> T:
        """Call ``make`` in the first process; every process returns its result, or raises the DMPError it raised."""
        if self.size == 1:
            return make()
        message: list[Any] = [None, None]
        if self.is_first:
            try:
                message[0] = make()
            except DMPError as error:
                message[1] = error
        with _reporting_lost_processes():
            dist.broadcast_object_list(message, src=0)
        if message[1] is not None:
            raise message[1] if self.is_first else _RemoteError(message[1])
        return message[0]

    def each(self, make: Callable[[], None]) -> None:
        """Call ``make`` in every process; all raise the DMPError of the first that raised one, which reports it."""
        own: DMPError | None = None
        try:
            make()
        except DMPError as error:
            own = error
        found = [own] * self.size
        if self.size > 1:
            with _reporting_lost_processes():
                dist.all_gather_object(found, own)
        for rank, failed in enumerate(found):
            if failed is not None:
                raise own if own is not None and rank == self.rank else _RemoteError(failed)

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Check that ``facts`` are the same in all processes.

        Raises:
            ConfigError: they are not; the message names the facts that differ.
        """
        if self.size == 1:
            return
        found: list[Any] = [None] * self.size
        with _reporting_lost_processes():
            dist.all_gather_object(found, dict(facts))
        differing = [name for name in facts if any(other.get(name) != found[0].get(name) for other in found)]
        if differing:
            raise ConfigError(f"the processes of this run were not given the same {', '.join(differing)}")

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.size > 1:
            with _reporting_lost_processes():
                dist.barrier()


class _RemoteError(DMPError):
    """An error of another process, which reports it for all processes."""

    silent = True

    def __init__(self, error: DMPError) -> None:
        super().__init__("", hint=error.hint)
        self.message, self.exit_code = error.message, error.exit_code


def leave(code: int) -> None:
    """If this process was connected to others, end it at once with exit status ``code``; else do nothing."""
    if dist.is_available() and dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def find_world() -> World:
    """The processes of this run, as what started them describes them in the environment; see :mod:`launchers`.

    Raises:
        ConfigError: the rank is not below the number of processes, or the others were not started.
    """
    env = os.environ
    adopt_launcher()
    size = int(env.get("WORLD_SIZE", "1")) if "RANK" in env else 1
    world = World(rank=int(env.get("RANK", "0")), size=size, local_rank=int(env.get("LOCAL_RANK", "0")))
    if size == 1:
        return World()
    if not 0 <= world.rank < size:
        raise ConfigError(f"RANK {world.rank} and WORLD_SIZE {size} do not go together")
    return world


def refuse_many(command: str) -> None:
    """Raise ConfigError when ``command``, which runs in one process, was started in several."""
    if find_world().size > 1:
        raise ConfigError(
            f"{command} runs in one process", hint="Start it without torchrun, accelerate launch, srun or mpirun."
        )


@contextlib.contextmanager
def _reporting_lost_processes() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # from the backend; whatever else its text, another process is gone
        if describe_fault(error) is not None:  # of this process' own device
            raise
        raise DMPError(
            "another process of this run has ended",
            hint="The message of that process says why. What was saved is whole, and --resume continues from it.",
        ) from error


def spread_weights(blocks: list[nn.Module], world: World, device: torch.device) -> None:
    """Keep only a share of the blocks' frozen weights in each process (FSDP2), and gather a block's when it runs.

    For a backbone that does not fit on one device. Its weights become tensors that are spread over the processes. No
    gradients are reduced for it, because none of its weights are learnt.

    Raises:
        ConfigError: there is only one process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    world.check_spread()
    mesh = init_device_mesh(device.type, (world.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
