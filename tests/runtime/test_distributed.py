"""Several processes: two gloo ones give what one gives, reduce the patch alone, and end together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from dmp_cli.cli import app
from dmp_cli.config import PatchConfig, TrainConfig
from dmp_cli.data.batches import Batch
from dmp_cli.errors import ConfigError, DMPError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.runtime.distributed import World, find_world, leave
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.memory import arranged
from dmp_cli.training.methods import prepare
from tests.builders import tiny_dit, write_images, write_meta_checkpoint

CPU = torch.device("cpu")
STEPS, BATCH = 4, 8
RUNS: dict[str, tuple[dict[str, Any], PatchConfig | None]] = {
    "dmp": ({"ema": 0.9}, PatchConfig()),
    "conditioning": ({"micro_batch_size": 2}, PatchConfig(gate_input="conditioning")),
    "noise": ({"gate_noise": True}, PatchConfig()),
    "half": ({"dtype": "fp16"}, PatchConfig()),
    "full": ({"method": "full", "micro_batch_size": 8}, None),  # more than a process has
    "spread": ({"shard_backbone": True}, PatchConfig()),
}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def batch(step: int, places: range) -> Batch:
    """This process' places of a global batch."""
    images = torch.rand(BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(step)) * 2 - 1
    rows = slice(places.start, places.stop)
    labels, indices = torch.arange(BATCH)[rows] % 4, torch.arange(BATCH)[rows]
    return Batch(step=step, values=images[rows], labels=labels, indices=indices, bad=[])


def train(name: str, world: World) -> dict[str, torch.Tensor]:
    options, patch = RUNS[name]
    if world.size == 1:
        options = {key: value for key, value in options.items() if key != "shard_backbone"}
    config = TrainConfig(data=Path("unused"), batch_size=BATCH, steps=STEPS, lr=0.01, **options)
    trainee = prepare(config, backbone=tiny_dit(), codec=PixelCodec(3), patch_config=patch)
    with arranged(trainee, config, world, CPU):
        loop = TrainingLoop(trainee, config, world=world)
        for step in range(STEPS):
            terms = loop.advance(loop.prepare(batch(step, loop.places)))
        found = {name: value.detach().clone() for name, value in trainee.learnt.items()}
    local = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in trainee.backbone.parameters())
    return {**found, "loss": terms["loss"], "local": torch.tensor(local)}


def work(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    reduced: list[int] = []
    reduce = dist.all_reduce

    def counting(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        reduced.append(tensor.numel() * tensor.element_size())
        return reduce(tensor, *args, **kwargs)

    dist.all_reduce = counting
    with find_world().connected(CPU) as world:
        for name in RUNS:
            reduced.clear()
            learnt = train(name, world)
            learnt["reduced"] = torch.tensor(reduced)
            save_file({key: value.contiguous() for key, value in learnt.items()}, f"{folder}/{name}-{rank}.safetensors")
        refused = []
        for call in (lambda: world.agree({"seed": rank, "same": 1}), lambda: world.tell(refuse)):
            try:
                call()
            except DMPError as error:
                refused.append(f"{type(error).__mro__[1].__name__} {error.silent} {error.message}")
        assert world.tell(lambda: f"said by {rank}") == "said by 0"
        assert world.gather(torch.tensor([[rank, 7]])).tolist() == [[0, 7], [1, 7]]
        with world.connected(CPU):  # a second time in one process, as a script that trains and samples does
            assert world.gather(torch.tensor([rank])).tolist() == [0, 1]
        Path(folder, f"refused-{rank}").write_text("\n".join(refused))
    leave(0)


def refuse() -> None:
    raise ConfigError("no")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(work, args=(str(folder), free_port()), nprocs=2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_the_same_global_batch_gives_the_same(two: Path, name: str) -> None:
    first, second = (load_file(two / f"{name}-{rank}.safetensors") for rank in range(2))
    alone = train(name, World())
    of_run = {"reduced", "local"}
    assert set(first) - {"reduced"} == set(alone)
    start = dict(prepare_like(name))
    assert any(not torch.equal(start[key], alone[key]) for key in start)
    for key in set(alone) - of_run:
        assert torch.equal(first[key], second[key])
        tolerance = 1e-3 if name == "half" else 2e-5
        one, other = (found[key].clone() for found in (first, alone))
        if key.endswith("qkv.bias"):  # a key's bias has no gradient but rounding errors, which Adam makes full steps of
            one[16:32] = other[16:32] = 0
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    learnt = 4 * sum(alone[key].numel() for key in start)
    helpers = 4 * 16 * 16 if name == "noise" else 0  # W_noise, where it is in the loss of an image
    assert first["reduced"].tolist() == [learnt + helpers + 4 * 5] * STEPS  # three terms and two signals
    whole = int(alone["local"])
    assert int(first["local"]) == whole if name != "spread" else int(first["local"]) < 0.7 * whole


def prepare_like(name: str) -> dict[str, torch.Tensor]:
    """What is learnt in a run, before its first step."""
    options, patch = RUNS[name]
    config = TrainConfig(data=Path("unused"), batch_size=BATCH, **options)
    trainee = prepare(config, backbone=tiny_dit(), codec=PixelCodec(3), patch_config=patch)
    return {key: value.detach() for key, value in trainee.learnt.items()}


@pytest.mark.slow
def test_what_one_process_is_refused_all_are(two: Path) -> None:
    for rank in range(2):
        disagreed, told = (two / f"refused-{rank}").read_text().splitlines()
        assert disagreed == "DMPError False the processes of this run were not given the same seed"
        assert told == f"DMPError {rank == 1} no"


# --- whole commands --------------------------------------------------------------------------------------------------


class Pair:
    """Two processes of one ``dmp train``, as torchrun starts them."""

    def __init__(self, folder: Path, *options: Any) -> None:
        self.folder, self.port = folder, free_port()
        self.processes = [self._start(rank, [str(option) for option in options]) for rank in range(2)]

    def _start(self, rank: int, options: list[str]) -> subprocess.Popen[str]:
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", "dmp_cli", "train", *options],
            cwd=self.folder,
            env={**os.environ, **place, **meet},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> list[tuple[int, str]]:
        outputs = [process.communicate(timeout=120) for process in self.processes]
        return [(p.returncode, said + noted) for p, (said, noted) in zip(self.processes, outputs, strict=True)]

    def wait_for(self, pattern: str) -> None:
        while not list(self.folder.glob(pattern)) and all(p.poll() is None for p in self.processes):
            time.sleep(0.01)


@pytest.fixture
def common(tmp_path: Path) -> list[Any]:
    weights = write_meta_checkpoint(tmp_path / "tiny.pt", tiny_dit())
    data = write_images(tmp_path / "images")
    named = ["--backbone", weights, "--num-classes", 4, "--num-heads", 2, "--data", data]
    return [*named, "--batch-size", 8, "--micro-batch-size", 2, "--save-every", 10, "--lr", 0.01, "--latent-store"]


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_both_go_on(common: list[Any], tmp_path: Path) -> None:
    pair = Pair(tmp_path, *common, "--steps", 100_000, "-o", "out")
    pair.wait_for("out/checkpoints/step-????????")
    pair.processes[1].kill()
    (code, said), _ = pair.finish()
    assert (code, "another process of this run has ended" in said) == (1, True), said
    assert "Traceback" not in said
    pair = Pair(tmp_path, *common, "--steps", 100_000, "--resume", "-o", "out")
    pair.wait_for("out/log.jsonl")
    time.sleep(1)
    for process in pair.processes:  # in the middle of a step's four micro-batches, most likely
        process.send_signal(signal.SIGTERM)
    (code, said), (other, silence) = pair.finish()
    assert (code, other, silence) == (143, 143, ""), said
    assert "saved, continue with --resume" in said
    done = max(int(path.name.removeprefix("step-")) for path in (tmp_path / "out" / "checkpoints").iterdir())
    assert [result[0] for result in Pair(tmp_path, "--resume", "-o", "out", "--steps", done + 7).finish()] == [0, 0]
    alone = [sys.executable, "-m", "dmp_cli", "train", *map(str, common), "--steps", str(done + 7), "-o", "alone"]
    subprocess.run(alone, cwd=tmp_path, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    of_two, of_one = (load_file(tmp_path / out / "patch.safetensors") for out in ("out", "alone"))
    for name, value in of_one.items():
        torch.testing.assert_close(of_two[name], value, rtol=2e-2, atol=2e-3)


@pytest.mark.slow
def test_each_mistake_is_said_once(common: list[Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    (code, said), (other, silence) = Pair(tmp_path, *common, "--steps", 2, "-o", "out").finish()
    assert (code, other, silence) == (1, 1, "")
    assert "out exists already" in said


# --- who there is ----------------------------------------------------------------------------------------------------


def test_a_single_process_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    world = find_world()
    assert (world.rank, world.size, world.is_first) == (0, 1, True)
    assert world.share(7) == range(7)
    assert world.own_device("auto") == "auto"


def test_slurm_is_said_in_torchs_words(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_one_task_of_an_array_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    for name, value in {"PROCID": "0", "STEP_NUM_TASKS": "1", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert find_world().size == 1


@pytest.mark.parametrize(
    "command", [["demo"], ["ablate", "table2", "--backbone", "digits"], ["eval", "--samples", "a", "--reference", "b"]]
)
def test_what_runs_alone_is_refused_in_many(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "runs in one process" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_nobody_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="do not go together"):
        find_world()
