"""The noise schedule of a diffusers folder: read from its scheduler, given as an option, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dmp_cli.backbones import load_backbone
from dmp_cli.config import ScheduleConfig
from dmp_cli.errors import CheckpointError
from tests.backbones.pipelines import tiny_plain_unet, write_scheduler


def test_a_unet_without_a_scheduler_needs_the_option(tmp_path: Path) -> None:
    tiny_plain_unet().save_pretrained(tmp_path / "unet")
    with pytest.raises(CheckpointError, match="does not say its noise schedule"):
        load_backbone(str(tmp_path / "unet"))
    backbone = load_backbone(str(tmp_path / "unet"), schedule="scaled_linear")
    assert backbone.schedule == ScheduleConfig(kind="scaled_linear", beta_start=0.00085, beta_end=0.012)


@pytest.mark.parametrize(
    "changes",
    [
        {"rescale_betas_zero_snr": True},
        {"beta_schedule": "sigmoid"},
        {"prediction_type": "sample"},
        {"trained_betas": [0.1]},
    ],
)
def test_unsupported_schedules_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    tiny_plain_unet().save_pretrained(tmp_path / "unet")
    write_scheduler(tmp_path / "unet", **changes)
    with pytest.raises(CheckpointError, match=next(iter(changes))):
        load_backbone(str(tmp_path / "unet"))
