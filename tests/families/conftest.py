"""Every test here is run for every family, and what passed is what docs/families.md says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmp_cli.backbones import Backbone

from .cases import CASES, Case

_WRITTEN: dict[str, Path] = {}


@pytest.fixture(params=CASES, ids=[case.name for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    """One family."""
    found: Case = request.param
    return found


@pytest.fixture
def place(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights, as ``--backbone`` names them; written once, and never changed."""
    if case.name not in _WRITTEN:
        folder = tmp_path_factory.mktemp("family") / "model"
        folder.mkdir()
        _WRITTEN[case.name] = case.write(folder)
    return _WRITTEN[case.name]


@pytest.fixture
def backbone(case: Case, place: Path) -> Backbone:
    """A backbone of it, freshly loaded."""
    return case.load(place)
