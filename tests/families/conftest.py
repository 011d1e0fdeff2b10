"""Every test here is run for every family, and what passed is what docs/families.md says of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmp_cli.backbones import Backbone
from tests.backbones.joined_pipelines import qwen_is_old

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
    if case.name == "Qwen-Image" and qwen_is_old():
        pytest.skip("this diffusers is too old for it, and dmp says so")
    if case.name not in _WRITTEN:
        folder = tmp_path_factory.mktemp("family") / "model"
        folder.mkdir()
        _WRITTEN[case.name] = case.write(folder)
    return _WRITTEN[case.name]


@pytest.fixture
def backbone(case: Case, place: Path) -> Backbone:
    """A backbone of it, freshly loaded."""
    return case.load(place)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Note what a test that passed shows of its family, in the file that DMP_SHOWN names; see docs/families.py."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    notes, spec = os.environ.get("DMP_SHOWN"), getattr(item, "callspec", None)
    if notes is None or report.when != "call" or not report.passed or spec is None:
        return
    found = spec.params.get("case")
    with open(notes, "a", encoding="utf-8") as file:  # a line at a time, from several processes
        for mark in item.iter_markers("shows"):
            column, cell = mark.args
            file.write(json.dumps([found.name, column, cell(found), item.nodeid.split("[")[0]]) + "\n")
