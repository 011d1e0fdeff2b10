"""Which noise levels training shows how often, and how much the loss counts at each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..errors import ConfigError
from .base import Frozen, option

if TYPE_CHECKING:
    from .train import TrainConfig

Levels = Literal["uniform", "logit-normal", "mode"]
LossWeight = Literal["none", "min-snr", "sigma-sqrt", "cosmap", "velocity", "likelihood"]
_MAX_SCALE = 1.75  # the map of mode turns back above 2 / (pi - 2) = 1.7519
_OWN = {"logit-normal": ("mean", "std"), "mode": ("mode_scale",)}  # fields that one kind alone reads


class LevelRule(Frozen):
    """How levels are drawn in training, as shares of the way from data, 0, to noise, 1. The default: all alike."""

    kind: Levels = "uniform"
    mean: float = 0.0  # of the logit of the share, for logit-normal; above 0: more noise
    std: float = Field(1.0, gt=0)
    mode_scale: float = Field(1.29, ge=-1, le=_MAX_SCALE)  # of mode: above 0, more of the middle
    shift: float = Field(1.0, gt=0)  # above 1: more noise

    @property
    def is_plain(self) -> bool:
        """Whether all levels are drawn alike."""
        return self.kind == "uniform" and self.shift == 1


# The options below, by the names that TrainConfig has them under.
LEVEL_OPTIONS = (
    *("levels", "level_mean", "level_std", "mode_scale", "level_shift"),
    *("loss_weight", "snr_gamma"),
)
_PANEL = "Noise levels"
LEVELS = option(
    "How often training shows each noise level, over the share of the way from data to noise: uniform, all alike; "
    "logit-normal or mode (Esser et al. 2024), the middle more often.",
    shown="as the backbone was trained",
    panel=_PANEL,
)
LEVEL_MEAN = option("Mean of logit-normal; above 0 shows more noise.", shown="0", ge=-20, le=20, panel=_PANEL)
LEVEL_STD = option("Standard deviation of logit-normal.", shown="1", gt=0, le=20, panel=_PANEL)
MODE_SCALE = option(
    "How much mode prefers the middle; below 0 it prefers the ends.", shown="1.29", ge=-1, le=_MAX_SCALE, panel=_PANEL
)
LEVEL_SHIFT = option(
    "Move all levels towards noise: the share s becomes S s / (1 + (S - 1) s), as for larger images.",
    shown="as the backbone was trained",
    gt=0,
    le=1000,
    panel=_PANEL,
)
LOSS_WEIGHT = option(
    "How much the loss counts at each noise level: none, all alike; min-snr for a DDPM; sigma-sqrt or cosmap for the "
    "velocity of a linear flow; velocity or likelihood for the noise or score of a flow.",
    default="none",
    panel=_PANEL,
)
SNR_GAMMA = option(
    "Signal-to-noise ratio from which on min-snr lets the image count no more.", shown="5", gt=0, le=1e6, panel=_PANEL
)


def level_rule(config: TrainConfig, family: LevelRule) -> LevelRule:
    """How a run draws its levels: as the ``family`` of its backbone was trained, but for what options say.

    Raises:
        ConfigError: an option belongs to another kind of rule.
    """
    asked = {
        "kind": config.levels,
        "mean": config.level_mean,
        "std": config.level_std,
        "mode_scale": config.mode_scale,
        "shift": config.level_shift,
    }
    rule = family.model_copy(update={key: value for key, value in asked.items() if value is not None})
    problem = foreign_option(config, rule.kind)
    if problem is not None:
        raise ConfigError(problem, hint="Name the kind with --levels.")
    return rule


def foreign_option(config: TrainConfig, kind: Levels) -> str | None:
    """What is wrong where an option of another kind than ``kind`` was given, in a sentence; else None."""
    named = {"mean": "level_mean", "std": "level_std", "mode_scale": "mode_scale"}
    for owner, fields in _OWN.items():
        for field in fields:
            if kind != owner and getattr(config, named[field]) is not None:
                return f"--{named[field].replace('_', '-')} is for --levels {owner}, and levels are {kind} here"
    return None
