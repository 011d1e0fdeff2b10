"""Training in two gloo processes gives what one gives, reduces the patch alone, and shares errors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from dmp_cli.config import PatchConfig, TrainConfig
from dmp_cli.data import LiveReader, find_images
from dmp_cli.data.batches import Batch
from dmp_cli.errors import ConfigError, DMPError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.runtime.distributed import World, find_world, leave
from dmp_cli.training.held_out import HeldOut
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.memory import arranged
from dmp_cli.training.methods import prepare
from tests.builders import tiny_dit, write_images

from .ports import free_port

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


def measure_held_out(folder: Path, world: World) -> dict[str, Any]:
    """The held-out loss of a patch that is no longer the identity, on images in ``folder``."""
    if world.is_first:
        write_images(folder / f"held-out-{world.size}", count=5)
    world.wait()
    images = find_images(folder / f"held-out-{world.size}")
    config = TrainConfig(data=Path("unused"), batch_size=BATCH)
    trainee = prepare(config, backbone=tiny_dit(), codec=PixelCodec(3), patch_config=PatchConfig())
    reader = LiveReader(images, image_size=8, channels=3)
    held_out = HeldOut(trainee.backbone, trainee.codec, source=(images, reader), draws=75, world=world)
    base = held_out.losses(trainee.denoiser)
    with torch.no_grad():
        for parameter in trainee.learnt.values():
            parameter.fill_(0.01)
    return held_out.compare(held_out.losses(trainee.denoiser), base=base).line()


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
        Path(folder, f"held-out-{rank}.json").write_text(json.dumps(measure_held_out(Path(folder), world)))
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
    assert first["reduced"].tolist() == [learnt + helpers + 4 * 6] * STEPS  # three terms and three signals
    whole = int(alone["local"])
    assert int(first["local"]) == whole if name != "spread" else int(first["local"]) < 0.7 * whole


def prepare_like(name: str) -> dict[str, torch.Tensor]:
    """What is learnt in a run, before its first step."""
    options, patch = RUNS[name]
    config = TrainConfig(data=Path("unused"), batch_size=BATCH, **options)
    trainee = prepare(config, backbone=tiny_dit(), codec=PixelCodec(3), patch_config=patch)
    return {key: value.detach() for key, value in trainee.learnt.items()}


@pytest.mark.slow
def test_the_held_out_loss_is_the_same_number(two: Path, tmp_path: Path) -> None:
    alone = json.loads(json.dumps(measure_held_out(tmp_path, World())))
    assert alone["difference"] != 0
    for rank in range(2):
        assert json.loads((two / f"held-out-{rank}.json").read_text()) == alone


@pytest.mark.slow
def test_an_error_of_one_process_reaches_all(two: Path) -> None:
    for rank in range(2):
        disagreed, told = (two / f"refused-{rank}").read_text().splitlines()
        assert disagreed == "DMPError False the processes of this run were not given the same seed"
        assert told == f"DMPError {rank == 1} no"
