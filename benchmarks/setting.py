"""What training is measured on: device, backbone, batch and precision, and the loops and steps made from them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmp_cli.backbones import build_backbone
from dmp_cli.backbones.base import Backbone
from dmp_cli.config import TrainConfig
from dmp_cli.data.batches import Batch
from dmp_cli.latents.codec import Codec, PixelCodec
from dmp_cli.runtime.distributed import World
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.memory import arranged
from dmp_cli.training.methods import prepare

from .paired import Clock

UNMEASURED = "not measured here"
LAYOUTS = contextlib.ExitStack()  # how the weights of the measured loops are kept, until a row is done


@dataclass(frozen=True)
class Setting:
    """What a training table is measured on."""

    backbone: str
    batch: int
    dtype: str
    device: torch.device
    rounds: int

    @property
    def clock(self) -> Clock:
        """Processor time on a CPU; on a GPU wall time, read once the device has finished its work."""
        if self.device.type == "cpu":
            return time.process_time

        def wait_and_read() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return wait_and_read

    def limit(self, on_cpu: str, on_gpu: str) -> str:
        """The target that applies to this device."""
        return on_cpu if self.device.type == "cpu" else on_gpu


def cpu(*, quick: bool) -> Setting:
    """The setting for a CPU."""
    return Setting("dit-s2" if quick else "dit-b2", 4, "fp32", torch.device("cpu"), 3 if quick else 9)


def gpu(*, quick: bool) -> Setting:
    """The setting for a GPU."""
    return Setting("dit-b2" if quick else "dit-l2", 128, "bf16", torch.device("cuda"), 3 if quick else 15)


def build_nonzero(name: str) -> Backbone:
    """A backbone on the CPU with random weights, none of them zero, so that gradients flow everywhere."""
    backbone = build_backbone(name, device="cpu")
    backbone.initialise(seed=0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return backbone


def backbone_of(setting: Setting) -> Backbone:
    """The backbone of a setting, with random weights, on its device."""
    return build_nonzero(setting.backbone).to(setting.device)


def loop_of(
    setting: Setting, *, codec: Codec | None = None, world: World | None = None, **changes: Any
) -> TrainingLoop:
    """A training loop for a patch on latents that are already computed.

    Its layout (half-precision weights, TF32) is entered into :data:`LAYOUTS`, which the caller closes.
    """
    size = setting.batch * (world.size if world else 1)
    options: dict[str, Any] = {"batch_size": size, "dtype": setting.dtype, **changes}
    config = TrainConfig(data=Path("latents"), **options)
    trainee = prepare(config, backbone=backbone_of(setting), codec=codec or PixelCodec(4))
    LAYOUTS.enter_context(arranged(trainee, config, world or World(), setting.device))
    return TrainingLoop(trainee, config, world=world)


def step_of(
    loop: TrainingLoop,
    values: Tensor | None = None,
    *,
    captions: list[str] | None = None,
    after: Callable[[], None] | None = None,
) -> Any:
    """A function that takes one whole training step, as a run does: noise, loss, backward, guard, optimizer."""
    count = len(loop.places)
    latents = torch.randn(count, 4, 32, 32) if values is None else values
    labels, indices = torch.randint(0, 1000, (count,)), torch.arange(count)

    def step() -> None:
        batch = Batch(step=loop.step, values=latents, labels=labels, indices=indices, bad=[], captions=captions)
        loop.advance(loop.prepare(batch))
        loop.guard.check()
        if after is not None:
            after()

    return step


def median_seconds(work: Callable[[], object], setting: Setting) -> float:
    """Median time of a call, after one call that is not counted."""
    work()
    times = []
    for _ in range(setting.rounds):
        start = setting.clock()
        work()
        times.append(setting.clock() - start)
    return sorted(times)[len(times) // 2]


def autocast_of(setting: Setting) -> Any:
    """Mixed precision for a forward pass outside the training loop."""
    if setting.dtype == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(setting.device.type, dtype=torch.bfloat16)
