"""The TOML of ranges: what it means, that it is read back as it is written, and every sentence of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmp_cli.errors import ConfigError
from dmp_cli.tuning import Range, Ranges, default_ranges, read_ranges

KNOWN = {"lr": float, "gate_lr": float, "warmup": int, "gate": None, "ema": float, "flip": None}
KNOWN |= {"balance_importance": float, "balance_load": float}


def read(text: str, folder: Path) -> Ranges:
    path = folder / "ranges.toml"
    path.write_text(text)
    return read_ranges(path, known=KNOWN, reserved={"steps"})


def test_what_a_file_means(tmp_path: Path) -> None:
    found = read(
        '# a comment\nema = 0.5\nlr = {low = 1e-5, high = 1, log = true}\ngate = ["linear", "none"]\n'
        "flip = [true, false]\nbalance-load = [0, 1]\n[warmup]\nlow = 0\nhigh = 10\nstep = 5\n",
        tmp_path,
    )
    assert found.fixed == {"ema": 0.5}
    assert found.free == (
        Range("lr", low=1e-5, high=1.0, log=True),
        Range("gate", choices=("linear", "none")),
        Range("flip", choices=(True, False)),
        Range("balance_load", choices=(0.0, 1.0)),
        Range("warmup", low=0, high=10, step=5),
    )
    assert [one.line for one in found.free] == [3, 4, 5, 6, 7]
    assert read(found.in_toml(), tmp_path) == found
    assert read(default_ranges().in_toml(), tmp_path) == default_ranges()
    corners = list(found.corners())
    assert len(corners) == 2**5
    assert {corner["lr"] for corner in corners} == {1e-5, 1.0}
    assert all(corner["ema"] == 0.5 for corner in corners)


def test_what_a_range_holds() -> None:
    steps = Range("warmup", low=0, high=10, step=5)
    assert [value for value in (-5, 0, 3, 5, 10, 15, 5.5, True, "5", None) if steps.holds(value)] == [0, 5, 10]
    rates = Range("lr", low=1e-5, high=1e-2, log=True)
    assert [value for value in (1e-6, 1e-5, 1e-4, 1, None) if rates.holds(value)] == [1e-5, 1e-4]
    assert Range("depth", low=1, high=3).holds(2)
    assert not Range("depth", low=1, high=3).holds(2.5)
    assert not Range("flip", choices=(True, False)).holds(1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\ngate_rl = {low = 1, high = 2}", "line 2: dmp train has no option gate_rl"),
        ("steps = [1, 2]", "line 1: steps is the same for all trials"),
        ("lr = 0.1", "holds no ranges"),
        ("lr = {low = 1, high = 1}", "line 1: low of lr is not below high"),
        ("lr = {low = 1}", "lr needs low and high, which are numbers"),
        ("lr = {low = 0, high = inf}", "lr needs low and high, which are numbers"),
        ("warmup = {low = 1.5, high = 3}", "warmup needs low and high, which are whole numbers"),
        ("lr = {low = 0, high = 1, log = true}", "begins above 0 and has no step"),
        ("lr = {low = 1, high = 2, log = 1}", "log of lr is true or false"),
        ("lr = {low = 1, high = 2, lag = true}", "a range has no lag"),
        ("warmup = {low = 0, high = 10, step = 4}", "steps of 4 do not lead from 0 to 10"),
        ("gate = {low = 0, high = 10}", "gate takes no numbers"),
        ('gate = ["linear"]', "gate needs two choices or more"),
        ("lr = [1, 1.0]", "lr needs two choices or more, each once"),
        ("lr = [[1], [2]]", "the choices of lr are words, numbers"),
        ("gate-lr = [1, 2]\ngate_lr = [1, 2]", "line 2: gate_lr stands twice"),
        ("lr = ", "is not valid TOML"),
    ],
)
def test_bad_input(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ranges\.toml") as error:
        read(text, tmp_path)
    assert told in str(error.value)
    assert text.count("gate_rl") == 0 or "Did you mean gate_lr" in (error.value.hint or "")
