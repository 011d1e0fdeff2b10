"""How many processes there are, as torchrun's or SLURM's environment variables say."""

from __future__ import annotations

import os

import pytest

from dmp_cli.errors import ConfigError
from dmp_cli.runtime.distributed import find_world


def test_a_single_process_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    world = find_world()
    assert (world.rank, world.size, world.is_first) == (0, 1, True)
    assert world.share(7) == range(7)
    assert world.own_device("auto") == "auto"


def test_slurms_variables_become_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "undone")  # so that what is set below is taken back after the test
        monkeypatch.delenv(name)
    step = {"PROCID": "5", "LOCALID": "1", "STEP_NUM_TASKS": "8", "JOB_ID": "1234", "STEP_ID": "0"}
    for name, value in {**step, "LAUNCH_NODE_IPADDR": "10.0.0.7"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    world = find_world()
    assert (world.rank, world.size, world.local_rank) == (5, 8, 1)
    assert os.environ["MASTER_ADDR"] == "10.0.0.7"
    assert 20000 <= int(os.environ["MASTER_PORT"]) < 36384
    assert world.share(16) == range(10, 12)
    with pytest.raises(ConfigError, match="--batch-size 12 cannot be shared by 8 processes"):
        world.share(12)


def test_a_task_of_a_slurm_array_is_a_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    for name, value in {"PROCID": "0", "STEP_NUM_TASKS": "1", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert find_world().size == 1


def test_a_rank_beyond_the_world_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="do not go together"):
        find_world()
