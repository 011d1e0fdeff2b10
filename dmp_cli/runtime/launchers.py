"""What starts the processes of a run, read from the environment: torchrun, accelerate launch, srun or mpirun.

torchrun, and accelerate launch with --multi_gpu, set RANK, WORLD_SIZE, LOCAL_RANK and where the processes meet. The
others have names of their own, from which those are set.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from ..errors import ConfigError

_FIRST_PORT, _PORTS = 20000, 16384  # a SLURM step takes one of so many ports
_USUAL_PORT = "29500"  # of torch


class _Names(NamedTuple):
    """The variables of one kind of MPI."""

    rank: str
    size: str
    local_rank: str
    local_size: str


_MPI = (
    _Names(*(f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"))),
    _Names("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    _Names(*(f"MV2_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"))),
)


def adopt_launcher() -> None:
    """Set torch's variables from those of srun or mpirun, where one of these has started this process.

    Raises:
        ConfigError: several processes were asked for and one was started, or they do not know where to meet.
    """
    env = os.environ
    if "RANK" in env:
        return
    if int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        _translate_slurm()
        return
    for names in _MPI:
        if int(env.get(names.size, "1")) > 1 and names.rank in env:
            _translate_mpi(names)
            return
    _refuse_lonely_process()


def _translate_slurm() -> None:
    """Set torch's environment variables from those of SLURM."""
    env = os.environ
    env["RANK"], env["WORLD_SIZE"] = env["SLURM_PROCID"], env["SLURM_STEP_NUM_TASKS"]
    env["LOCAL_RANK"] = env.get("SLURM_LOCALID", "0")
    env.setdefault("MASTER_ADDR", env.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
    step = int(env.get("SLURM_JOB_ID", "0")) * 31 + int(env.get("SLURM_STEP_ID", "0"))
    env.setdefault("MASTER_PORT", str(_FIRST_PORT + step % _PORTS))


def _translate_mpi(names: _Names) -> None:
    """Set torch's environment variables from those of mpirun, which says nothing of where the processes meet."""
    env = os.environ
    size, local_size = env[names.size], env.get(names.local_size, env[names.size])
    if "MASTER_ADDR" not in env and int(local_size) < int(size):
        raise ConfigError(
            f"the {size} processes that mpirun started on several machines do not know where to meet",
            hint="Set MASTER_ADDR to the first machine, as mpirun -x MASTER_ADDR=… does.",
        )
    env["RANK"], env["WORLD_SIZE"], env["LOCAL_RANK"] = env[names.rank], size, env.get(names.local_rank, "0")
    env.setdefault("MASTER_ADDR", "127.0.0.1")
    env.setdefault("MASTER_PORT", _USUAL_PORT)


def _refuse_lonely_process() -> None:
    """Raise ConfigError where accelerate was asked for several processes and has started this one alone.

    That is what ``accelerate launch --cpu --num_processes 2`` does without a host file of MPI. It sets where processes
    meet only where several were asked for, and does not say how many.
    """
    env = os.environ
    by_accelerate = env.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1")
    if by_accelerate and "MASTER_ADDR" in env and "MASTER_PORT" in env:
        raise ConfigError(
            "accelerate launch --cpu starts one process, whatever --num_processes says",
            hint="Start several by torchrun --standalone --nproc-per-node N -m dmp_cli, or give --num_processes 1.",
        )
