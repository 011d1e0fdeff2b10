"""A patched backbone in DistributedDataParallel: two gloo processes, only the patch is reduced."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from dmp_cli.patching.attachment import attach
from dmp_cli.patching.patched import PatchedBackbone
from tests.builders import filled_patch, tiny_dit

BATCH = 4


def patched() -> PatchedBackbone:
    backbone = tiny_dit()
    return attach(backbone, filled_patch(backbone))


def loss_of(module: torch.nn.Module, rows: slice) -> torch.Tensor:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 3, 8, 8, generator=source)
    timesteps, labels = torch.tensor([3, 250, 700, 999]), torch.tensor([0, 1, 4, 2])
    return module(x[rows], timesteps[rows], labels[rows]).square().mean()


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    wrapped = DistributedDataParallel(patched())
    loss_of(wrapped, slice(2 * rank, 2 * rank + 2)).backward()
    gradients = {name: p.grad for name, p in wrapped.module.named_parameters() if p.grad is not None}
    torch.save(gradients, f"{folder}/{rank}.pt")
    with contextlib.suppress(RuntimeError):  # the other may have gone already: all that counts is saved
        dist.barrier()
    # Gloo's own threads now and then abort the process while it is being torn down ("terminate called without an
    # active exception"), so it is not torn down. An error above still ends it with a traceback and another code.
    os._exit(0)


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    alone = patched()
    loss_of(alone, slice(0, BATCH)).backward()
    assert set(first) == {f"patch.{name}" for name, _ in alone.patch.named_parameters()}
    for name, parameter in alone.patch.named_parameters():
        assert torch.equal(first[f"patch.{name}"], second[f"patch.{name}"])
        torch.testing.assert_close(first[f"patch.{name}"], parameter.grad, rtol=1e-5, atol=1e-7)
