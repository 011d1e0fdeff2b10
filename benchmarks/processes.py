"""Throughput of several training processes on one machine, connected by gloo."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from typing import Any

import torch

from dmp_cli.runtime.distributed import find_world, leave

from .paired import Row, summary
from .setting import UNMEASURED, Setting, loop_of, step_of


def two_processes(setting: Setting) -> Row:
    """Images per second of two gloo processes over those of one. Each has one thread and the same batch size."""
    what = "two gloo processes on two cores / one on one, images/s"
    if setting.device.type != "cpu" or (os.cpu_count() or 1) < 2:
        return what, UNMEASURED, setting.limit("1.8 (at least)", "-")
    found = []
    for _ in range(3):
        one, two = (_seconds_per_step(setting, size) for size in (1, 2))
        found.append(2 * one / two)
    return what, summary(found), "1.8 (at least)"


def _seconds_per_step(setting: Setting, size: int) -> float:
    context = multiprocessing.get_context("spawn")
    results: Any = context.SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [context.Process(target=_worker, args=(setting, size, rank, port, results)) for rank in range(size)]
    for process in processes:
        process.start()
    seconds = results.get()
    for process in processes:
        process.join()
    return seconds


def _worker(setting: Setting, size: int, rank: int, port: int, results: Any) -> None:
    torch.set_num_threads(1)
    place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    with find_world().connected(setting.device) as world:
        step = step_of(loop_of(setting, world=world))
        step()
        world.wait()
        start, steps = time.perf_counter(), setting.rounds
        for _ in range(steps):
            step()
        if world.is_first:
            results.put((time.perf_counter() - start) / steps)
    leave(0)
