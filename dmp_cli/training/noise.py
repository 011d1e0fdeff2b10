"""What a training step draws at random: a pure function of (seed, step, place in the global batch).

Letters: B images of the global batch, b of them in this process, N prompts of a block, C, H, W of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..config import TrainConfig
from ..runtime import randomness


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step. What a gate alone needs is there for the whole global batch."""

    timesteps: Tensor  # (B,) int64
    noise: Tensor  # (b, C, H, W)
    posterior: Tensor | None  # (b, C, H, W): of the VAE; None: the codec has no posterior
    gate_rows: Tensor | None  # (B, N): for the gate's logits; None: no use for them
    dropped: Tensor | None  # (B,) bool: whose label or caption is left out; None: nobody's

    def to(self, device: torch.device) -> Draws:
        """The same on ``device``."""
        moved: dict[str, Any] = {
            k: value if value is None else to_device(value, device) for k, value in vars(self).items()
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Drawer:
    """Makes the draws of any step."""

    config: TrainConfig
    places: range  # of this process in the global batch
    sample_shape: tuple[int, ...]
    num_timesteps: int
    has_posterior: bool
    num_prompts: int  # of a gate whose logits get noise; 0: none do
    drops: bool  # whether labels or captions are dropped

    def draw(self, step: int) -> Draws:
        """The draws of ``step`` (0-based), in main memory."""
        config, everyone = self.config, range(self.config.batch_size)
        own: dict[str, Any] = {"seed": config.seed, "step": step, "indices": self.places}
        of_all: dict[str, Any] = {"seed": config.seed, "step": step, "indices": everyone}
        rows = (config.batch_size, self.num_prompts)
        dropped = randomness.uniform("class-dropout", **of_all) < config.class_dropout if self.drops else None
        return Draws(
            timesteps=randomness.integers("timestep", self.num_timesteps, **of_all),
            noise=randomness.normal("noise", self.sample_shape, **own),
            posterior=randomness.normal("posterior", self.sample_shape, **own) if self.has_posterior else None,
            gate_rows=randomness.normal_rows("load", rows, seed=config.seed, step=step) if self.num_prompts else None,
            dropped=dropped,
        )


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """``value`` on ``device``; to a GPU without waiting for it, through pinned memory."""
    if device.type == "cpu":
        return value
    if device.type == "cuda":
        with torch.cuda.device(device):  # a thread of its own starts on the first GPU
            return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)
