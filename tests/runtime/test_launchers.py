"""The environments of torchrun, accelerate launch, srun and mpirun, and what is made of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.errors import ConfigError
from dmp_cli.runtime.distributed import find_world
from tests.builders import tiny_dit, write_images, write_meta_checkpoint

from .ports import free_port

_PREFIXES = ("SLURM_", "OMPI_", "PMI_", "MPI_", "MV2_", "ACCELERATE_", "TORCHELASTIC_")
_TORCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*_TORCH, *(name for name in os.environ if name.startswith(_PREFIXES))):
        monkeypatch.setenv(name, "undone")  # so that what is set below is taken back after the test
        monkeypatch.delenv(name)


def place(monkeypatch: pytest.MonkeyPatch, **variables: str) -> tuple[int, int, int]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    world = find_world()
    return world.rank, world.size, world.local_rank


def test_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29400", "TORCHELASTIC_RUN_ID": "none"}
    group = {"GROUP_RANK": "1", "LOCAL_WORLD_SIZE": "4", "ROLE_RANK": "6"}
    assert place(monkeypatch, RANK="6", WORLD_SIZE="8", LOCAL_RANK="2", **meet, **group) == (6, 8, 2)


def test_torchrun_within_a_slurm_job_is_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
    assert place(monkeypatch, RANK="3", WORLD_SIZE="4", LOCAL_RANK="1", **slurm) == (3, 4, 1)


def test_srun_with_an_mpi_plugin_is_sruns(monkeypatch: pytest.MonkeyPatch) -> None:
    step = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "1", "PMI_RANK": "1", "PMI_SIZE": "2"}
    assert place(monkeypatch, SLURM_LAUNCH_NODE_IPADDR="10.0.0.7", **step) == (1, 2, 1)
    assert os.environ["MASTER_ADDR"] == "10.0.0.7"


@pytest.mark.parametrize(
    ("rank", "size", "local"),
    [
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
        ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
        ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
    ],
)
def test_mpirun(rank: str, size: str, local: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place(monkeypatch, **{rank: "3", size: "4", local: "3"}) == (3, 4, 3)
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("127.0.0.1", "29500")


def test_mpirun_on_several_machines_has_to_say_where_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
    there = {f"OMPI_COMM_WORLD_{name}": value for name, value in zip(names, "3412", strict=True)}
    with pytest.raises(ConfigError, match="do not know where to meet"):
        place(monkeypatch, **there)
    assert place(monkeypatch, MASTER_ADDR="10.0.0.7", **there) == (3, 4, 1)


def test_one_process_of_mpirun_or_accelerate_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1", "ACCELERATE_USE_CPU": "True"}
    assert place(monkeypatch, **alone) == (0, 1, 0)


def of_accelerate(*options: str) -> dict[str, str]:
    """What ``accelerate launch`` sets for the process that it starts with --cpu."""
    launch = pytest.importorskip("accelerate.commands.launch")
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    args = launch.launch_command_parser().parse_args(["--cpu", *options, "-m", "dmp_cli", "train"])
    args, _, _ = launch._validate_launch_command(args)
    changed: Any = prepare_simple_launcher_cmd_env(args)[1]
    return {
        name: value for name, value in changed.items() if os.environ.get(name) != value and name != "OMP_NUM_THREADS"
    }


def test_accelerate_on_cpus_that_starts_one_process_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    several = of_accelerate("--num_processes", "2")
    with pytest.raises(ConfigError, match="starts one process") as told:
        place(monkeypatch, **several)
    assert "torchrun --standalone --nproc-per-node N -m dmp_cli" in str(told.value.hint)
    by_mpi = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    assert place(monkeypatch, **by_mpi) == (1, 2, 1)  # its --mpirun_hostfile has mpirun start them


def test_accelerate_on_cpus_that_was_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place(monkeypatch, **of_accelerate("--num_processes", "1")) == (0, 1, 0)


@pytest.mark.slow
def test_accelerate_starts_two_that_train_as_one(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    weights, data = write_meta_checkpoint(tmp_path / "tiny.pt", tiny_dit()), write_images(tmp_path / "images")
    train = ["train", "--backbone", weights, "--num-classes", 4, "--num-heads", 2, "--data", data, "--steps", 2]
    train += ["--batch-size", 4, "--log-every", 1, "--device", "cpu"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", 2]
    launch += ["--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", free_port(), "-m", "dmp_cli"]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}

    def started(by: list[Any], output: str) -> str:
        command = [str(word) for word in [*by, *train, "-o", output]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "2 processes" in started(launch, "two")
    started([sys.executable, "-m", "dmp_cli"], "one")
    from safetensors.torch import load_file

    one, two = (load_file(tmp_path / name / "patch.safetensors") for name in ("one", "two"))
    assert all((one[name] - two[name]).abs().max() < 1e-5 for name in one)
