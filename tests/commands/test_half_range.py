"""``--dtype fp16`` with a family whose values it cannot hold: said from the config, before weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dmp_cli import pipeline
from dmp_cli.errors import ConfigError
from tests.backbones.flow_pipelines import write_flux_pipeline
from tests.backbones.pipelines import write_captioned

from .conftest import Run

TOLD = "--dtype fp16 ends at 65,504, and blocks of the family flux go beyond"


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights are read: what would read them ends the command."""

    def load(*_: Any, **__: Any) -> None:
        raise ConfigError("the weights would be read now")

    monkeypatch.setattr(pipeline, "load_backbone_alone", load)


@pytest.mark.slow
def test_it_is_said_before_weights_are_read(run: Run, unread: None, tmp_path: Path) -> None:
    write_flux_pipeline(tmp_path / "flux")
    write_captioned(tmp_path / "images", count=2, size=16)
    named = ["--backbone", "flux", "--image-size", 16, "--device", "cpu", "--no-text-store"]
    commands = (
        ["train", *named, "--data", "images", "-o", "run"],
        ["sample", *named, "--prompt", "a red fox", "-n", 1],
        ["eval", "--loss", *named[:-1], "--patch", "x.safetensors", "--val-data", "images"],
    )
    for command in commands:
        for dtype in ("fp16", "bf16") if command[0] == "sample" else ("fp16",):
            shown = run(*command, "--dtype", dtype, code=1).stderr
            assert (TOLD in " ".join(shown.split())) == (dtype == "fp16"), command


def test_others_are_not_warned_of(run: Run, backbone: list[str]) -> None:
    shown = run("sample", *backbone, "-n", 1, "--steps", 1, "--device", "cpu", "--dtype", "fp16").stderr
    assert "65,504" not in shown
