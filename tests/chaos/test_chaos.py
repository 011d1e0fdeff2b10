"""The chaos programme: it finds every fault of a stand-in, and some cases of every kind go well in the tool."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.errors import DataError

from . import __main__ as programme, workers
from .cases import Ended, Kind, judge
from .kinds import NAMES, kind_of
from .table import render, render_failures
from .workers import run_cases

# How many cases of each kind: more of the quick ones, so that all take about twenty seconds.
COUNTS = {"patch-raw": 22, "patch-sealed": 51, "statistics": 50, "gates": 28, "features": 22, "images": 20, "vae": 22}
COUNTS |= {"adapter": 42, "archives": 30, "captions": 51, "store": 24, "backbone": 30, "state": 16, "run": 16}
COUNTS |= {"samples": 16, "configs": 30, "arrays": 27, "imports": 26, "text": 16, "latents": 27, "tuned": 30}
COUNTS |= {"searches": 30, "texts": 40}


class StandIn(Kind):
    """A reader with every fault there is, one for each way, and one without."""

    seconds = 1.0

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        faults = ("right", "refused", "ended", "raises", "wrong", "sleeps", "allocates", "dies", "hangs")
        self.ways = dict.fromkeys(faults, self._write)

    def _write(self, rng: Any, place: Path) -> None:
        (place / "drawn").write_text(str(rng.random()))

    def write(self, place: Path) -> None:
        """Nothing is needed."""

    def open(self, place: Path, way: str) -> str | None:
        if way == "refused":
            raise DataError("no")
        if way == "ended":
            raise Ended("no")
        if way == "raises":
            raise RuntimeError("boom")
        if way == "sleeps":
            time.sleep(30)
        if way == "allocates":
            bytearray(2 << 30)
        if way == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "hangs":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            time.sleep(60)
        return "other numbers" if way == "wrong" else None


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (workers, programme):
        monkeypatch.setattr(module, "kind_of", lambda name: StandIn)
    monkeypatch.setattr(workers, "_GRACE", 0.5)
    monkeypatch.setattr(workers, "_import_slow", lambda: None)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is limited on Linux only")
@pytest.mark.usefixtures("stand_in")
def test_every_fault_is_found_and_ends_nothing() -> None:
    found = {outcome.way: outcome for outcome in run_cases("x", range(9), seed=0, processes=1)}
    assert {way: outcome.verdict for way, outcome in found.items()} == {
        **{"right": "same", "refused": "own error", "ended": "own error", "raises": "traceback", "wrong": "wrong"},
        **{"sleeps": "late", "allocates": "large", "dies": "traceback", "hangs": "late"},
    }
    assert "test_chaos.py" in found["raises"].where
    table = render(found.values()).splitlines()[1].split()
    assert table[:8] == ["x", "9", "2", "1", "2", "1", "2", "1"]
    told = render_failures(found.values(), seed=5)
    assert "x:3" in told
    assert "--seed 5 --only KIND:NUMBER" in told


@pytest.mark.usefixtures("stand_in")
def test_the_programme_says_what_failed_and_how_to_see_it_again(capsys: Any, tmp_path: Path) -> None:
    assert programme.main(["gates", "--count", "3"]) == 0
    assert "no failures" in capsys.readouterr().out
    assert programme.main(["gates", "--count", "4", "--json", str(tmp_path / "all.json")]) == 1
    assert "gates: 1 x traceback: RuntimeError at " in capsys.readouterr().out
    verdicts = {row["number"]: row["verdict"] for row in json.loads((tmp_path / "all.json").read_text())}
    assert verdicts == {0: "same", 1: "own error", 2: "own error", 3: "traceback"}
    assert programme.main(["--only", "gates:3"]) == 1
    assert 'raise RuntimeError("boom")' in capsys.readouterr().err
    assert programme.main(["--only", "gates:0"]) == 0


def test_a_case_is_a_function_of_kind_seed_and_number(tmp_path: Path) -> None:
    drawn = []
    for name, seed, number in (("x", 0, 0), ("x", 0, 0), ("x", 1, 0), ("y", 0, 0), ("x", 0, 9)):
        judge(StandIn(tmp_path), name, number, seed=seed, place=tmp_path / "case")
        drawn.append((tmp_path / "case" / "drawn").read_text())
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4


def test_every_kind_has_a_module_and_is_tried() -> None:
    files = {path.stem.replace("_", "-") for path in (Path(__file__).parent / "kinds").glob("[a-z]*.py")}
    assert files == set(NAMES)
    assert {*COUNTS, "kills"} == set(NAMES)
    assert all(issubclass(kind_of(name), Kind) for name in NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_some_cases_of_every_kind(name: str) -> None:
    outcomes = list(run_cases(name, range(COUNTS[name]), seed=0))
    assert len(outcomes) == COUNTS[name]
    assert not any(outcome.failed for outcome in outcomes), render_failures(outcomes, seed=0)


@pytest.mark.slow
def test_twenty_kills_leave_the_same_bytes() -> None:
    (outcome,) = run_cases("kills", [0], seed=0)
    assert outcome.verdict == "same", outcome
