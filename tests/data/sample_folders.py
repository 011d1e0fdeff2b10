"""Folders of samples as ``dmp sample`` leaves them, made without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmp_cli.config import Prompt, SampleConfig
from dmp_cli.sampling import Plan, SampleFolder

ORIGIN: dict[str, Any] = {"device": "cpu", "versions": {"dmp": "1"}}


def write_samples(
    path: Path,
    count: int = 6,
    *,
    tar: bool = False,
    classes: tuple[int, ...] | None = (0, 1, 2, 3),
    texts: tuple[str, ...] = (),
    names: list[str] | None = None,
) -> Path:
    """``count`` random pictures of a backbone of four classes, or of one that reads ``texts``."""
    prompts = tuple(Prompt(text=text) for text in texts) or None
    config = SampleConfig(num_images=count, classes=None if texts else classes, prompts=prompts)
    plan, folder = Plan(config), SampleFolder(path, tar=tar)
    made = {"sample": config.model_dump(mode="json", exclude={"num_images"}), "patch": None}
    made["backbone"] = {"family": "dit", "sizes": {"num_classes": 0 if texts or classes is None else 4}}
    origin = ORIGIN if names is None else {**ORIGIN, "classes": names}
    folder.open(made, origin=origin, num_images=count, force=False)
    folder.write_plan(lambda: [plan.text(count)])
    folder.write({index: np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8) for index in range(count)})
    folder.pack(count)
    folder.draw_grid(plan, rows=2, columns=2)
    return path


def small_tars(monkeypatch: pytest.MonkeyPatch, images: int) -> None:
    """Let tars hold fewer images."""
    monkeypatch.setattr("dmp_cli.sampling.tars.GROUP", images)
