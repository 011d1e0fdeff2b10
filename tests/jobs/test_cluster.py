"""Jobs of submitit's local executor: two that wait for each other, a lost one, and what ``--cluster`` takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from dmp_cli.errors import ConfigError, DMPError
from dmp_cli.jobs import Cluster, Job, Outcome, Running, carry_out, jobs_of, read_cluster
from tests.commands.conftest import files_in

pytest.importorskip("submitit")


class Seen:
    """A board that remembers."""

    def __init__(self) -> None:
        self.began_: list[tuple[str, str]] = []

    def began(self, job: Job, running: Running, command: Sequence[str]) -> None:
        self.began_.append((job.name, running.where))

    def ended(self, job: Job, running: Running, outcome: Outcome) -> None: ...


def tiny(folder: Path, done: list[int]) -> list[Job]:
    sample = ["sample", "--backbone", "digits", "-n", "4", "--steps", "2", "--device", "cpu", "-q"]
    commands = [[*sample, "-o", f"{folder}/a"], [*sample, "--seed", "1", "-o", f"{folder}/a", "--force"]]
    return jobs_of(
        commands, folder=folder, typed=lambda n: commands[n], is_done=lambda n: n in done, finish=done.append
    )


@pytest.mark.slow
def test_two_jobs_a_lost_one_and_one_of_an_earlier_call(tmp_path: Path, own_handlers: None) -> None:
    settings, board, done = read_cluster("local"), Seen(), []
    jobs = tiny(tmp_path / "out", done)

    def cluster() -> Cluster:
        return Cluster(settings, tmp_path / "out" / "jobs", at_once=None)

    lost = cluster().start(jobs[0])  # and this call ends here, as by a kill: the job goes on
    controller = psutil.Process(int(lost.where.split()[1]))
    for process in [controller, *controller.children(recursive=True)]:
        process.kill()
    for _ in range(600):
        if lost.is_over() and cluster().may_start(jobs[0]):
            break
        time.sleep(0.05)
    kept = cluster().start(jobs[0])
    assert kept.where != lost.where  # submitted again
    carry_out(jobs, cluster(), board)
    assert board.began_[0] == ("sample a", kept.where)  # gone on with
    assert board.began_[1][1] != kept.where
    assert done == [0, 1]
    assert {"000000.png", "samples.json"} <= files_in(tmp_path / "out" / "a")
    assert not list((tmp_path / "out" / "jobs").glob("????????????????.json"))


@pytest.mark.slow
def test_the_error_of_a_job_is_its_own(tmp_path: Path, own_handlers: None) -> None:
    commands = [["sample", "--backbone", "nothing-of-this-name", "-o", str(tmp_path / "out" / "a")]]
    jobs = jobs_of(commands, folder=tmp_path / "out", typed=lambda number: commands[number])
    with pytest.raises(DMPError) as caught:
        carry_out(jobs, Cluster(read_cluster("local"), tmp_path / "out" / "jobs", at_once=1), Seen())
    assert caught.value.message.startswith("sample a: ")
    assert "nothing-of-this-name" in caught.value.message


def test_what_cluster_takes(tmp_path: Path) -> None:
    assert read_cluster("slurm").cluster == "slurm"
    with pytest.raises(ConfigError, match="Did you mean slurm"):
        read_cluster("slrum")
    file = tmp_path / "a100.toml"
    file.write_text('slurm_partition = "gpu"\ntimeout_min = 240\ngpus_per_node = 1\n')
    assert read_cluster(str(file)).parameters == {"slurm_partition": "gpu", "timeout_min": 240, "gpus_per_node": 1}
    file.write_text('cluster = "sge"\n')
    with pytest.raises(ConfigError, match="'sge' is neither slurm nor local"):
        read_cluster(str(file))
    file.write_text('cluster = "local"\ntimeout_mins = 3\n')
    with pytest.raises(ConfigError, match=r"a100.toml: submitit refuses it: .*timeout_mins"):
        Cluster(read_cluster(str(file)), tmp_path / "jobs", at_once=None)
