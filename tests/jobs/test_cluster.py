"""Jobs of submitit's local executor: two that wait for each other, a lost one, and what ``--cluster`` takes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from dmp_cli.demo import write_digits
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


SLURM = {
    # runs the script of a job in the background
    "launch": """echo RUNNING > $1.state; echo >> $1.launches
    (SLURM_JOB_ID=$1 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 \\
        SLURM_JOB_NODELIST=here bash -c "cd $HOME_OF_JOBS; bash $PWD/$1.sh" && echo COMPLETED > $1.state) \\
        > /dev/null 2>&1 &""",
    "sbatch": """id=$(( $(cat next 2>/dev/null || echo 100) + 1 )); echo $id > next; cp "${@: -1}" $id.sh
    launch $id; echo Submitted batch job $id""",
    "srun": """echo $$ > $SLURM_JOB_ID.pid; cd $HOME_OF_JOBS
    while [[ $1 == --* ]]; do case $1 in --output|--error) shift 2;; *) shift;; esac; done; exec "$@" """,
    "sacct": """echo 'JobID|State|NodeList'; for s in *.state; do echo "${s%.state}|$(cat $s)|here"; done""",
    "scancel": """kill -TERM $(cat $1.pid)""",
    "scontrol": """launch $2""",  # requeue ID
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The commands of Slurm as scripts that run jobs here; the folder of their states."""
    state = tmp_path / "slurm"
    state.mkdir()
    for name, script in SLURM.items():
        path = state / name
        path.write_text(f"#!/bin/bash\ncd {state}\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{state}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME_OF_JOBS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return state


@pytest.mark.slow
def test_slurm_with_a_machine_that_is_lost(slurm: Path, tmp_path: Path, own_handlers: None) -> None:
    Path("gpu.toml").write_text('slurm_partition = "gpu"\ntimeout_min = 240\n')
    done: list[int] = []
    jobs, folder = tiny(Path("out"), done), Path("out/jobs")
    lost = Cluster(read_cluster("gpu.toml"), folder, at_once=2).start(jobs[0])
    assert lost.where == "slurm 101"
    assert "--partition=gpu" in (slurm / "101.sh").read_text()
    while not (slurm / "101.pid").exists():
        time.sleep(0.05)
    for process in (top := psutil.Process(int((slurm / "101.pid").read_text()))).children(recursive=True):
        process.kill()
    (slurm / "101.state").write_text("NODE_FAIL")
    top.kill()
    Path("out/a").mkdir(parents=True, exist_ok=True)
    note = Path("out/a/.owner.json")
    note.write_text('{"command": "dmp sample", "host": "lost-node", "pid": 7, "since": "today"}')
    board = Seen()
    carry_out(jobs, Cluster(read_cluster("gpu.toml"), folder, at_once=2), board)
    assert board.began_ == [("sample a", "slurm 102"), ("sample a", "slurm 103")]
    assert done == [0, 1]
    assert not note.exists()


@pytest.mark.slow
def test_a_job_that_runs_out_of_time_saves_and_is_queued_again(slurm: Path, own_handlers: None) -> None:
    write_digits(Path("digits"))
    how = ["--steps", "300", "--save-every", "300", "--sample-every", "0", "--batch-size", "4", "--log-every", "1"]
    command = [
        "train",
        "--backbone",
        "digits",
        "--data",
        "digits",
        *how,
        "--device",
        "cpu",
        "--resume",
        "-o",
        "out/run",
    ]
    jobs = jobs_of([command], folder=Path("out"), typed=lambda number: command)
    cluster = Cluster(read_cluster("slurm"), Path("out/jobs"), at_once=None)
    running = cluster.start(jobs[0])
    while not (log := Path("out/run/log.jsonl")).exists() or len(log.read_text().splitlines()) < 3:
        assert running.poll() is None
        time.sleep(0.02)
    os.kill(int((slurm / "101.pid").read_text()), signal.SIGUSR2)  # as Slurm does before the end of the time
    while (outcome := running.poll()) is None:
        time.sleep(0.05)
    assert outcome.code == 0
    assert len((slurm / "101.launches").read_text()) == 2
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines() if '"loss"' in line]
    assert steps == list(range(1, 301))  # it went on where it stood: no step twice
    assert Path("out/run/patch.safetensors").exists()


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
