"""Choosing the device, and the precision of matrix products on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from ..config import Dtype
from ..errors import ConfigError

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """The device called ``name``: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; ``auto`` is the first of CUDA, MPS, CPU.

    Raises:
        ConfigError: ``name`` is not a kind of device, or this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"--device {name}: no such kind of device", hint="Give auto, cpu, cuda, cuda:N or mps."
        ) from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= count.get(device.type, 0):
        raise ConfigError(
            f"--device {name}: this machine has {count.get(device.type, 0)} {device.type} devices",
            hint="Leave --device out to use the best one there is.",
        )
    return device


def autocast(device: torch.device, dtype: Dtype) -> contextlib.AbstractContextManager[Any]:
    """Context with matrix products in ``dtype``; weights, sums and the hidden state between blocks stay float32."""
    if dtype == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=HALF[dtype])


@contextlib.contextmanager
def fast_matmul(device: torch.device) -> Iterator[None]:
    """Context in which float32 matrix products on CUDA use TF32: eight times as fast, with a mantissa of 10 bits."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
