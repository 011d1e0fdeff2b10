"""The gates on the page of scores: what is read from a folder of dmp inspect-gates, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dmp_cli.errors import MetricError
from dmp_cli.evaluation.gates import gates_sections
from dmp_cli.report import draw_image_grid


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Gates of 20 timesteps, 3 blocks and 4 prompts."""
    weights = np.random.default_rng(0).random((20, 3, 4))
    np.savez(tmp_path / "gates.npz", weights=weights, timesteps=np.arange(0, 1000, 50))
    return tmp_path


def test_there_is_a_frame_for_each_shown_timestep(folder: Path) -> None:
    (section,) = gates_sections(folder)
    (frames,) = section.frames
    assert len(frames.pictures) == 16
    assert (frames.names[0], frames.names[-1]) == ("0", "950")
    assert frames.pictures[0].alt == "Gate weights of 3 blocks at timestep 0"
    weights = np.load(folder / "gates.npz")["weights"]
    assert f"from {weights.min():.2g} to {weights.max():.2g}" in section.paragraphs[0]


def test_pictures_over_depth_are_shown_where_they_were_drawn(folder: Path) -> None:
    png = draw_image_grid([np.zeros((4, 4, 3), np.uint8)], rows=1, columns=1)
    (folder / "usage.png").write_bytes(png)
    over_timesteps, over_depth = gates_sections(folder)
    assert over_timesteps.heading == "Gates over timesteps"
    assert [picture.png for picture in over_depth.pictures] == [png]


def test_a_folder_without_gates_or_with_a_damaged_picture_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "added.png").write_bytes(b"no picture")
    with pytest.raises(MetricError, match=r"added\.png is not a PNG"):
        gates_sections(folder)
    with pytest.raises(MetricError, match=r"cannot read .*gates\.npz"):
        gates_sections(tmp_path / "missing")
