"""The loop with commands that are objects here: order, room, a failure, a signal, and what a killed call left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dmp_cli.errors import DMPError, StoppedError
from dmp_cli.jobs import Here, Job, Outcome, carry_out, schedule, slots_of
from dmp_cli.jobs.processes import outcome_of
from dmp_cli.storage import own


class Fake:
    """A command that ends at its n-th look, or when it is asked to."""

    where = "here"

    def __init__(self, looks: int, code: int, ended: Callable[[], None]) -> None:
        self.looks, self.code, self.stops, self._ended = looks, code, 0, ended

    def poll(self) -> Outcome | None:
        self.looks -= 1
        if self.looks > 0 and not self.stops:
            return None
        self._ended()
        return Outcome(143 if self.stops else self.code, ["--lr 0: too low", "  Give more."] if self.code else [])

    def remark(self) -> str:
        return ""

    def stop(self) -> None:
        self.stops += 1

    def kill(self) -> None:
        raise AssertionError("it has ended by itself")


class Room:
    """Places for fakes; ``looks`` and ``codes`` by number."""

    def __init__(self, count: int, looks: dict[int, int] | None = None, codes: dict[int, int] | None = None) -> None:
        self.left, self.looks, self.codes = count, looks or {}, codes or {}
        self.log: list[str] = []
        self.fakes: dict[int, Fake] = {}

    def free(self) -> bool:
        return self.left > 0

    def may_start(self, job: Job) -> bool:
        return Here([]).may_start(job)

    def start(self, job: Job) -> Fake:
        self.left -= 1
        self.log.append(f"begin {job.number}")

        def ended() -> None:
            self.left += 1
            self.log.append(f"end {job.number}")

        self.fakes[job.number] = Fake(self.looks.get(job.number, 1), self.codes.get(job.number, 0), ended)
        return self.fakes[job.number]


class Nobody:
    def began(self, job: Job, running: object, command: Sequence[str]) -> None: ...

    def ended(self, job: Job, running: object, outcome: Outcome) -> None: ...


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch, own_handlers: None) -> None:
    monkeypatch.setattr(schedule, "_PAUSE", 0.001)


def jobs(
    waits: list[set[int]], *, done: set[int] = frozenset(), marked: list[int] | None = None, **more: Path
) -> list[Job]:
    return [
        Job(
            number, f"train run-{number}", str(number), more.get(f"at_{number}"), frozenset(before), lambda: ["train"],
            number in done, finish=lambda number=number: None if marked is None else marked.append(number),
        )
        for number, before in enumerate(waits)
    ]  # fmt: skip


def test_each_begins_when_what_it_waits_for_is_done_and_there_is_room() -> None:
    marked: list[int] = []
    room = Room(2, looks={0: 3})
    carry_out(jobs([set(), set(), {1}, {0}, set()], done={4}, marked=marked), room, Nobody())
    assert room.log == ["begin 0", "begin 1", "end 1", "begin 2", "end 2", "end 0", "begin 3", "end 3"] or room.log == [
        "begin 0", "begin 1", "end 1", "begin 2", "end 0", "end 2", "begin 3", "end 3",
    ]  # fmt: skip
    assert sorted(marked) == [0, 1, 2, 3]
    assert room.left == 2


def test_one_that_fails_stops_the_others_and_is_named() -> None:
    marked: list[int] = []
    room = Room(3, looks={0: 10**6, 1: 3, 2: 2}, codes={1: 1})
    with pytest.raises(DMPError) as caught:
        carry_out(jobs([set(), set(), set(), {0}, {1}], marked=marked), room, Nobody())
    assert caught.value.told() == "train run-1: --lr 0: too low\nGive more."
    assert room.fakes[0].stops == 1  # it was asked to save, once
    assert room.left == 3
    assert [line for line in room.log if line.startswith("begin")] == ["begin 0", "begin 1", "begin 2"]
    assert marked == [2]


def test_a_signal_lets_all_save_and_the_same_jobs_go_on() -> None:
    marked: list[int] = []

    class Struck(Room):
        def start(self, job: Job) -> Fake:
            fake = super().start(job)
            if job.number == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return fake

    room = Struck(2, looks={0: 10**6, 1: 10**6})
    with pytest.raises(StoppedError) as caught:
        carry_out(jobs([set(), set(), {0}], marked=marked), room, Nobody())
    assert caught.value.exit_code == 130
    assert "3 of 3 commands are left" in caught.value.message
    assert [fake.stops for fake in room.fakes.values()] == [1, 1]
    carry_out(jobs([set(), set(), {0}], marked=marked), Room(1), Nobody())
    assert marked == [0, 1, 2]


def test_what_a_killed_call_left_at_work_is_waited_for(tmp_path: Path) -> None:
    room = Room(2)
    inner = tmp_path / "run"
    with own(inner, command="dmp train"):  # this very process, as another one would
        work = schedule._Work(jobs([set(), set()], at_0=inner), room, Nobody())
        for _ in range(5):
            assert work.goes_on(asked=False)
    while work.goes_on(asked=False):
        pass
    assert room.log == ["begin 1", "end 1", "begin 0", "end 0"]


def test_what_a_process_said_of_its_end() -> None:
    said = ["warning: few images", "train 3/10", "error: no data given", "  Name a folder."]
    assert outcome_of(said, 1) == Outcome(1, ["no data given", "  Name a folder."], ["few images"])
    assert outcome_of(["x"], -9).told == ["its process was ended by SIGKILL, perhaps as memory ran out"]
    assert outcome_of([], 3).told == ["it ended with exit code 3"]
    assert outcome_of(said, 0).told == []


def test_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-b")
    seen = [slot.environment.get("CUDA_VISIBLE_DEVICES") for slot in slots_of(3, device=None)]
    assert seen == ["3", "GPU-b", "3"]
    assert [slot.environment for slot in slots_of(2, device="cuda:1")] == [{}, {}]  # named: all compute there
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert [slot.where for slot in slots_of(2, device=None)] == ["cpu 1", "cpu 2"]
