"""Which levels training draws: maps of uniform numbers to shares of the way from data, 0, to noise, 1.

Each map rises, so that it takes the quantiles of the uniform numbers to those of the levels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..config import LevelRule


def noise_shares(uniform: Tensor, rule: LevelRule) -> Tensor:
    """The noise shares (B,) float64 in [0, 1] that ``rule`` makes of ``uniform`` numbers (B,) float64 in [0, 1]."""
    u = uniform.double()
    if rule.kind == "logit-normal":  # s = sigmoid(m + std Phi^-1(u)) (Esser et al. 2024, Section 3.1)
        u = torch.sigmoid(rule.mean + rule.std * torch.special.ndtri(u))
    elif rule.kind == "mode":  # s = f(1 - u), f(u) = 1 - u - k (cos^2(pi u / 2) - 1 + u) , which falls
        other = 1 - u
        u = 1 - other - rule.mode_scale * ((math.pi / 2 * other).cos().square() - 1 + other)
    # Towards noise by the shift S: S s / (1 + (S - 1) s) (Eq. 23)
    return (rule.shift * u / (1 + (rule.shift - 1) * u)).clamp(0, 1)
