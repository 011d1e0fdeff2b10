"""The random numbers of a training step: a pure function of (seed, step, place in the global batch).

Letters: B images of the global batch, b of them in this process, N prompts of a block, (C, H, W) the shape of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..config import LevelRule, TrainConfig
from ..diffusion import Process
from ..runtime import randomness


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step. Those that a gate needs are drawn for the whole global batch."""

    timesteps: Tensor  # (B,) levels: int64 of a DDPM, float32 of a flow
    noise: Tensor  # (b, C, H, W)
    posterior: Tensor | None  # (b, C, H, W) noise of the VAE's posterior; None without a posterior
    gate_noise: Tensor | None  # (B, N) noise of the gate's logits; None if no logits get noise
    dropped: Tensor | None  # (B,) bool, true where the label or caption is dropped; None if none is
    withheld: Tensor | None = None  # (B, K) bool, true where one of K text encoders is not told the caption

    def to(self, device: torch.device) -> Draws:
        """The same draws on ``device``."""
        moved: dict[str, Any] = {
            name: value if value is None else to_device(value, device) for name, value in vars(self).items()
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class NoiseSource:
    """Makes the random numbers of any step."""

    config: TrainConfig
    places: range  # of this process in the global batch
    sample_shape: tuple[int, ...]
    process: Process  # which makes levels of uniform numbers
    has_posterior: bool
    num_prompts: int  # N of a gate whose logits get noise; 0 if no logits get noise
    drops_condition: bool  # whether labels or captions are dropped at random
    rule: LevelRule | None = None  # which levels; None: all alike

    def draw(self, step: int, *, sides: tuple[int, int] | None = None) -> Draws:
        """The random numbers of ``step`` (0-based), in main memory; ``sides``: of its samples, where they vary."""
        shape_of_sample = self.sample_shape if sides is None else (self.sample_shape[0], *sides)
        config, everywhere = self.config, range(self.config.batch_size)
        own: dict[str, Any] = {"seed": config.seed, "step": step, "indices": self.places}
        of_all: dict[str, Any] = {"seed": config.seed, "step": step, "indices": everywhere}
        shape = (config.batch_size, self.num_prompts)
        dropped = randomness.uniform("class-dropout", **of_all) < config.class_dropout if self.drops_condition else None
        return Draws(
            timesteps=self.process.training_levels(randomness.uniform("timestep", **of_all), self.rule),
            noise=randomness.normal("noise", shape_of_sample, **own),
            posterior=randomness.normal("posterior", shape_of_sample, **own) if self.has_posterior else None,
            gate_noise=randomness.normal_rows("load", shape, seed=config.seed, step=step) if self.num_prompts else None,
            dropped=dropped,
            withheld=self._withheld(of_all),
        )

    def _withheld(self, of_all: dict[str, Any]) -> Tensor | None:
        rates = self.config.encoder_dropout or {}
        own = [randomness.uniform(f"dropout-{name}", **of_all) < rate for name, rate in rates.items()]
        return torch.stack(own, dim=1) if own else None


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """``value`` on ``device``. The copy to a GPU goes through pinned memory, so the host does not wait for it."""
    if device.type == "cpu":
        return value
    if device.type == "cuda":
        with torch.cuda.device(device):  # a new thread uses the first GPU by default
            return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)
