"""The journal: the defaults first, proposals that depend on no kill, pruning, other searches, and damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.errors import ConfigError
from dmp_cli.tuning import FAILED, PRUNED, RUNNING, Journal, Range, Ranges, Trial

RANGES = Ranges(
    (
        Range("lr", low=1e-5, high=1e-2, log=True),
        Range("gate", choices=("linear", "attention")),
        Range("warmup", low=0, high=8, step=4),
        Range("top_k", low=1, high=9),
    )
)
DEFAULTS = {"lr": 1e-4, "gate": "linear", "warmup": 0, "top_k": None}
ABOUT = {"steps": 8, "inputs": {"data": "abc"}}


def journal(folder: Path, *, seed: int = 0, about: dict[str, Any] | None = None) -> Journal:
    found = Journal(folder / "journal.jsonl", ranges=RANGES, defaults=DEFAULTS, seed=seed, warmup=2)
    found.open(about or ABOUT)
    return found


def loss_of(trial: Trial) -> float:
    """A made-up objective."""
    return abs(trial.options["lr"] - 1e-3) + trial.options["warmup"] * 0.001


def test_the_defaults_come_first_and_a_reopened_journal_proposes_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    straight = journal(tmp_path / "a")
    for _ in range(9):
        trial = straight.begin()
        straight.finish(trial.number, loss_of(trial))
    trials = straight.trials()
    assert trials[0].options == {"lr": 1e-4, "gate": "linear", "warmup": 0}  # no default of top_k is in its range
    assert all(RANGES.free[0].holds(trial.options["lr"]) for trial in trials)
    assert {type(trial.options["top_k"]) for trial in trials[1:]} == {int}
    for number in range(9):  # another process each time, which may have been killed while the trial ran
        own = journal(tmp_path / "b")
        assert own.begin().number == number
        again = journal(tmp_path / "b")
        (running,) = [trial for trial in again.trials() if trial.state == RUNNING]
        again.finish(running.number, loss_of(running))
    assert journal(tmp_path / "b").trials() == trials
    (tmp_path / "c").mkdir()
    other = journal(tmp_path / "c", seed=1)
    other.finish(other.begin().number, 1.0)
    assert other.begin().options != trials[1].options


def test_in_rounds_a_trial_knows_of_earlier_rounds_alone(tmp_path: Path) -> None:
    found = []
    for name, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):  # in which the trials of a round end
        (tmp_path / name).mkdir()
        own = Journal(
            tmp_path / name / "journal.jsonl", ranges=RANGES, defaults=DEFAULTS, seed=0, warmup=2, round_size=3
        )
        own.open(ABOUT)
        hopeless = []
        for _ in range(4):
            trials = [own.begin() for _ in range(3)] if name == "b" else []
            for place in order:
                trial = trials[place] if trials else own.begin()
                hopeless.append((trial.number, own.report(trial.number, 4, loss_of(trial))))
                own.finish(trial.number, loss_of(trial))
        found.append((own.trials(), sorted(hopeless)))
        assert [own.seen_by(number) for number in (0, 2, 3, 8)] == [0, 0, 3, 6]
    assert found[0] == found[1]
    assert any(is_hopeless for _, is_hopeless in found[0][1])


def test_hopeless_trials_are_known_by_the_median_of_the_others(tmp_path: Path) -> None:
    search = journal(tmp_path)
    for loss in (1.0, 2.0, 3.0):
        number = search.begin().number
        for step in (1, 2, 4, 8):
            assert not search.report(number, step, loss)  # too few have finished
        search.finish(number, loss)
    fair, worse = search.begin(), search.begin()
    assert not search.report(fair.number, 4, 1.9)
    assert not search.report(worse.number, 1, 9.0)  # before step 2 nothing is pruned
    assert search.report(worse.number, 2, 2.1)
    assert search.report(worse.number, 2, 2.1)  # a continued run reports it again
    search.give_up(worse.number, state=PRUNED, reason="too high")
    search.give_up(fair.number, state=FAILED, reason="diverged")
    trials = search.trials()
    assert (trials[4].state, trials[4].reason, trials[4].losses) == (PRUNED, "too high", {1: 9.0, 2: 2.1})
    assert (trials[3].state, trials[3].value) == (FAILED, None)


def test_two_processes_see_each_other_s_trials(tmp_path: Path) -> None:
    one, two = journal(tmp_path), journal(tmp_path)
    assert [search.begin().number for search in (one, two, one)] == [0, 1, 2]
    two.finish(0, 0.5)  # begun by the other one
    assert one.trials() == two.trials()
    one.mark("seed 1")
    assert two.done() == {"seed 1"}


def test_the_journal_of_another_search_and_damage(tmp_path: Path) -> None:
    search = journal(tmp_path)
    search.finish(search.begin().number, 1.0)
    path, sound = tmp_path / "journal.jsonl", (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="is the journal of another search: steps 8, now 9"):
        journal(tmp_path, about={**ABOUT, "steps": 9})
    assert path.read_bytes() == sound
    # what a killed process left of a line counts as not there, and is removed by the next one
    path.write_bytes(sound + b'{"op_code":5,"worker')
    again = journal(tmp_path)
    again.begin()
    assert [json.loads(line)["op_code"] for line in path.read_text().splitlines()]
    assert len(again.trials()) == 2
    lines = sound.decode().splitlines(keepends=True)
    for damaged in (
        "no json\n" + "".join(lines[1:]),
        "".join(lines[:1]) + "[]\n",
        sound.decode().replace('"values":[1.0]', '"values":[NaN]'),
        sound.decode().replace('"lr":', '"rl":'),
        sound.decode().replace("-4.0", "400.0").replace("0.0001", "5.0"),
        sound.decode().replace('"values":[1.0]', '"values":["x"]'),
        sound.decode().replace('"search":', '"something":'),
        '{"op_code":99,"worker_id":"x"}\n',
        '{"op_code":4,"worker_id":"x"}\n',
        "\x00\xff\n",
    ):
        path.write_bytes(damaged.encode("latin-1"))
        with pytest.raises(ConfigError, match=r"journal\.jsonl") as error:
            journal(tmp_path).trials()
        assert "\n" not in error.value.message, damaged
