"""On which device each of several processes computes."""

from __future__ import annotations

import os
from typing import NamedTuple


class Slot(NamedTuple):
    """A place for one process at a time."""

    where: str  # as people are told of it
    environment: dict[str, str]  # what its process needs


def slots_of(count: int, *, device: str | None) -> list[Slot]:
    """``count`` places, on the visible GPUs in turn, or on what ``--device`` names."""
    names = _visible_gpus() if device in (None, "auto", "cuda") else []
    if not names:
        return [
            Slot(f"{device or 'cpu'} {number + 1}" if count > 1 else device or "cpu", {}) for number in range(count)
        ]
    return [
        Slot(f"cuda {names[number % len(names)]}", {"CUDA_VISIBLE_DEVICES": names[number % len(names)]})
        for number in range(count)
    ]


def _visible_gpus() -> list[str]:
    """The GPUs that this process sees, by what CUDA_VISIBLE_DEVICES takes."""
    import torch

    count = torch.cuda.device_count()
    told = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return told[:count] if told else [str(number) for number in range(count)]
