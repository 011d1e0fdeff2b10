"""Damaged checkpoints are named and passed over, and an interrupted save leaves the earlier ones readable."""

import errno
import json
import os
import random
import shutil
import signal
import time

import pytest
import torch

from dmp_cli.errors import CheckpointError, DMPError
from dmp_cli.training.checkpoint import list_states, load_newest, save_state

from .run_states import load_quietly, make_state, names_in, same


def flip(name, place, bit=3):
    def damage(folder):
        data = bytearray((folder / name).read_bytes())
        data[place] ^= 1 << bit
        (folder / name).write_bytes(data)

    return damage


def cut(name, size):
    def damage(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:size])

    return damage


def replace(name, old, new):
    def damage(folder):
        text = (folder / name).read_text()
        assert text.count(old) == 1
        (folder / name).write_text(text.replace(old, new))

    return damage


DAMAGES = {
    "last bit": flip("learnt.safetensors", -1),
    "header bit": flip("optimizer.safetensors", 20),
    "empty part": flip("ema.safetensors", 0),
    "cut part": cut("helpers.safetensors", -1),
    "no part": lambda folder: (folder / "learnt.safetensors").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "empty manifest": cut("manifest.json", 0),
    "cut manifest": cut("manifest.json", 60),
    "manifest without end": cut("manifest.json", -2),
    "another step": replace("manifest.json", '"step": 3', '"step": 7'),
    "another scale": replace("manifest.json", "1024.0", "1024.5"),
    "list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "number": lambda folder: (folder / "manifest.json").write_text("3"),
    "empty folder": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_is_named_and_the_one_before_used(tmp_path, damage):
    for step in (1, 2, 3):
        save_state(tmp_path, make_state(step, scaler={"scale": 1024.0}), keep=3)
    damage(tmp_path / "step-00000003")
    warnings = []
    assert same(load_newest(tmp_path, warn=warnings.append), make_state(2, scaler={"scale": 1024.0}))
    assert len(warnings) == 1
    assert f"checkpoint {tmp_path / 'step-00000003'} is damaged" in warnings[0]


def test_every_bit_of_the_manifest_counts(tmp_path):
    path = save_state(tmp_path, make_state(3, scaler={"scale": 1024.0}), keep=3) / "manifest.json"
    data, numbers = path.read_bytes(), random.Random(0)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << numbers.randrange(8)
        path.write_bytes(damaged)
        try:
            state = load_newest(tmp_path, warn=lambda text: None)
        except CheckpointError:
            continue
        assert same(state, make_state(3, scaler={"scale": 1024.0}))  # a space that became another one
    path.write_bytes(data)
    load_quietly(tmp_path)


def test_all_are_damaged(tmp_path):
    for step in (1, 2):
        save_state(tmp_path, make_state(step), keep=3)
        DAMAGES["last bit"](tmp_path / f"step-{step:08d}")
    warnings = []
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged") as caught:
        load_newest(tmp_path, warn=warnings.append)
    assert "--force" in caught.value.hint
    assert [text.split(" is damaged")[0][-1] for text in warnings] == ["2", "1"]


@pytest.mark.parametrize("keep", [1, 3])
def test_a_run_that_fell_back_saves_over_the_damage(tmp_path, keep):
    """A damaged checkpoint neither prevents the writing of a good one nor causes its removal."""
    for step in (10, 20, 30):
        save_state(tmp_path, make_state(step), keep=3)
    DAMAGES["last bit"](tmp_path / "step-00000030")
    save_state(tmp_path, make_state(25), keep=keep)  # the run went on from 20
    assert load_quietly(tmp_path).step == 25
    assert len(names_in(tmp_path)) == keep
    DAMAGES["cut part"](tmp_path / "step-00000025")
    save_state(tmp_path, make_state(25), keep=keep)  # the same step again
    assert same(load_quietly(tmp_path), make_state(25))


def test_half_written_folders_are_removed(tmp_path):
    save_state(tmp_path, make_state(1), keep=3)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "step-00000002.partial")
    (tmp_path / "notes.txt").write_text("mine")
    assert [path.name for path in list_states(tmp_path)] == ["step-00000001"]
    assert load_quietly(tmp_path).step == 1
    assert names_in(tmp_path) == ["notes.txt", "step-00000001"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failed_save_leaves_the_ones_before(tmp_path, monkeypatch, call):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    save_state(tmp_path, make_state(1), keep=1)
    with monkeypatch.context() as context:
        context.setattr(os, call, full)
        with pytest.raises(DMPError, match="no space left on the disk"):
            save_state(tmp_path, make_state(2), keep=1)
    assert names_in(tmp_path) == ["step-00000001"]
    assert load_quietly(tmp_path).step == 1


def save_for_ever(folder, first, ready):
    """In a child process: write a checkpoint of about half a megabyte per step, until killed."""
    for step in range(first, 10**6):
        big = torch.full((300, 200), float(step))
        save_state(folder, make_state(step, learnt={"a": big, "b": big[0] / 3}, optimizer={"m": -big}), keep=2)
        if step == first:
            os.write(ready, b"x")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_newest_state_loads_after_kill_9_at_any_moment(tmp_path):
    numbers, step, interrupted = random.Random(0), 0, 0
    for _ in range(20):
        reader, ready = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                save_for_ever(tmp_path, step + 1, ready)
            finally:
                os._exit(1)
        os.close(ready)
        assert os.read(reader, 1) == b"x"  # one is written, so from now on there is always a newest one
        os.close(reader)
        time.sleep(numbers.uniform(0.002, 0.04))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        interrupted += any(name.endswith(".partial") for name in names_in(tmp_path))
        state = load_quietly(tmp_path)
        assert state.step > step
        step = state.step
        assert state.learnt["a"].eq(step).all()
        assert state.optimizer["m"].eq(-step).all()
        assert json.loads((tmp_path / f"step-{step:08d}" / "manifest.json").read_text())["step"] == step
        assert not [name for name in names_in(tmp_path) if name.endswith(".partial")]
    assert interrupted  # at least one kill came during a save
