"""The chaos script: a run killed with kill -9 at twenty random moments writes the same bytes as an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.chaos import chaos


@pytest.mark.slow
def test_twenty_kills_leave_the_same_bytes(tmp_path: Path) -> None:
    same, struck = chaos(tmp_path, kills=20, seed=0)
    assert same
    assert struck >= 10  # the others came after the last step
