"""The options of the balance losses and of the noise on a gate's logits, by TrainConfig's names."""

from __future__ import annotations

from typing import Literal

from .base import option

Losses = Literal["paper", "authors"]
PANEL = "Gate and balance"

IMPORTANCE = option(
    "Weight of the importance loss, which keeps the gate from using few prompts only. 0 switches it off.",
    default=1.0,
    ge=0,
    panel=PANEL,
)
LOAD = option(
    "Weight of the load loss, which evens out how often each prompt is among the strongest. 0 switches it off.",
    default=1.0,
    ge=0,
    panel=PANEL,
)
LOSSES = option(
    "Compute the two balance losses as the paper says, or as the authors' code does, for comparison.",
    default="paper",
    panel=PANEL,
)
GATE_NOISE = option(
    "Add noise to the gate's logits while it trains, as the authors' code does.",
    "--gate-noise/--no-gate-noise",
    default=False,
    panel=PANEL,
)
