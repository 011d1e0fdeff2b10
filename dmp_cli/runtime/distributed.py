"""Several processes that train as one: who they are, and the few things they tell each other.

Started by ``torchrun`` (and so by ``accelerate launch``) or by SLURM's ``srun``, which say in the environment how many
processes there are. Each computes its share of every global batch; what is learnt is the same in all of them.
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

from ..errors import ConfigError, DMPError, StoppedError

T = TypeVar("T")

_PATIENCE = datetime.timedelta(hours=2)  # one process may build statistics or draw a grid while the others wait
_PORTS = 16384  # as many from 20000 on: where the processes of a SLURM step meet


class World:
    """All processes of one run, as one of them sees it. Alone, every method is free and changes nothing."""

    def __init__(self, *, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0

    @contextlib.contextmanager
    def connected(self, device: torch.device) -> Iterator[World]:
        """Context in which the processes can reach each other: gloo between CPUs, NCCL between GPUs.

        The connection is not taken down: gloo's own threads now and then abort a process while it is being torn down.
        Whoever made the process should end it with :func:`leave`.

        Raises:
            DMPError: they cannot find each other.
        """
        if self.size == 1:
            yield self
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            if not dist.is_initialized():  # an earlier context of this process has left it open
                dist.init_process_group(backend, rank=self.rank, world_size=self.size, timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise DMPError(
                f"the {self.size} processes of this run cannot find each other: {str(error).splitlines()[0]}",
                hint="Start them with torchrun, or set MASTER_ADDR and MASTER_PORT to where the first one runs.",
            ) from error
        yield self
        with contextlib.suppress(RuntimeError):
            dist.barrier()  # nobody leaves while another still needs it

    @contextlib.contextmanager
    def speaking(self) -> Iterator[None]:
        """Context whose errors say which process they are of; that all of them were stopped only one says."""
        try:
            yield
        except DMPError as error:
            if not self.is_first:
                error.message = f"process {self.rank}: {error.message}"
                error.silent = error.silent or isinstance(error, StoppedError)
            raise

    def own_device(self, name: str) -> str:
        """``name`` of a device for this process: of ``auto`` and ``cuda`` the GPU that is its own."""
        if self.size == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        return f"cuda:{self.local_rank}"

    def share(self, count: int) -> range:
        """This process' places of ``count``, which the number of processes divides: the r-th stretch of them.

        Raises:
            ConfigError: it does not divide them.
        """
        if count % self.size:
            raise ConfigError(
                f"--batch-size {count} cannot be shared by {self.size} processes",
                hint="Give a multiple of their number.",
            )
        each = count // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def check_spread(self) -> None:
        """Raise ConfigError when there is nobody to spread weights over."""
        if self.size == 1:
            raise ConfigError("--shard-backbone needs several processes", hint="Start them with torchrun.")

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all processes: one reduction over one buffer."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        with _losing_others():
            dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, (size * n, ...), in the order of the processes; each has n."""
        if self.size == 1:
            return rows
        found = rows.new_empty(self.size * len(rows), *rows.shape[1:])
        with _losing_others():
            dist.all_gather(list(found.chunk(self.size)), rows.contiguous())
        return found

    def tell(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the first process, in every process; an error it raises is raised in all."""
        if self.size == 1:
            return make()
        message: list[Any] = [None, None]
        if self.is_first:
            try:
                message[0] = make()
            except DMPError as error:
                message[1] = error
        with _losing_others():
            dist.broadcast_object_list(message, src=0)
        if message[1] is not None:
            raise message[1] if self.is_first else _Elsewhere(message[1])
        return message[0]

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Check that all processes were given the same.

        Raises:
            ConfigError: they were not; it names what differs.
        """
        if self.size == 1:
            return
        found: list[Any] = [None] * self.size
        with _losing_others():
            dist.all_gather_object(found, dict(facts))
        differing = [name for name in facts if any(other.get(name) != found[0].get(name) for other in found)]
        if differing:
            raise ConfigError(f"the processes of this run were not given the same {', '.join(differing)}")

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            with _losing_others():
                dist.barrier()


class _Elsewhere(DMPError):
    """An error that the first process reports for all of them."""

    silent = True

    def __init__(self, error: DMPError) -> None:
        super().__init__(error.message, hint=error.hint)
        self.exit_code = error.exit_code


def leave(code: int) -> None:
    """End this process with ``code``, at once, if it was connected to others; else do nothing."""
    if dist.is_available() and dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def find_world() -> World:
    """The processes this one was started with, from what torchrun or srun left in the environment.

    Raises:
        ConfigError: it says something that cannot be.
    """
    env = os.environ
    if "RANK" not in env and int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        _meet_in_slurm()
    size = int(env.get("WORLD_SIZE", "1")) if "RANK" in env else 1
    world = World(rank=int(env.get("RANK", "0")), size=size, local_rank=int(env.get("LOCAL_RANK", "0")))
    if size == 1:
        return World()
    if not 0 <= world.rank < size:
        raise ConfigError(f"RANK {world.rank} and WORLD_SIZE {size} do not go together")
    return world


def refuse_many(command: str) -> None:
    """Raise ConfigError when ``command``, which runs alone, was started in several processes."""
    if find_world().size > 1:
        raise ConfigError(f"{command} runs in one process", hint="Start it without torchrun or srun.")


def _meet_in_slurm() -> None:
    """Say in torch's words what srun says in SLURM's."""
    env = os.environ
    env["RANK"], env["WORLD_SIZE"] = env["SLURM_PROCID"], env["SLURM_STEP_NUM_TASKS"]
    env["LOCAL_RANK"] = env.get("SLURM_LOCALID", "0")
    env.setdefault("MASTER_ADDR", env.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
    step = int(env.get("SLURM_JOB_ID", "0")) * 31 + int(env.get("SLURM_STEP_ID", "0"))
    env.setdefault("MASTER_PORT", str(20000 + step % _PORTS))


@contextlib.contextmanager
def _losing_others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of the backend: whatever it says, another process is gone
        raise DMPError(
            "another process of this run has ended",
            hint="Its own message says why; what was saved is whole, and --resume goes on from it.",
        ) from error


def spread_weights(blocks: list[nn.Module], world: World, device: torch.device) -> None:
    """Keep only a share of the blocks' frozen weights in each process (FSDP2); a block's are gathered when it runs.

    For a backbone that does not fit one device. Nothing is reduced for it, as nothing of it is learnt. Its weights are
    tensors spread over the processes from then on.

    Raises:
        ConfigError: there is only one process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    world.check_spread()
    mesh = init_device_mesh(device.type, (world.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
