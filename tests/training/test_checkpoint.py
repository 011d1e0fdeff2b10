"""Checkpoints of a run: states and optimizers are read exactly as they were written, and only the newest are kept."""

import shutil

import torch
from torch import nn

from dmp_cli.training.checkpoint import RunState, list_states, pack_optimizer, save_state, unpack_optimizer

from .run_states import load_quietly, make_state, names_in, same


def test_a_state_is_read_as_it_was_written(tmp_path):
    state = make_state(
        3,
        learnt={"a": torch.randn(5, 3).T, "p": nn.Parameter(torch.randn(2)), "h": torch.randn(2).bfloat16()},
        ema={"a": torch.tensor([1.0, -0.0, 3e38])[1:]},
        scaler={"scale": 65536.0, "growth_factor": 2.1, "_growth_tracker": 7},
    )
    path = save_state(tmp_path / "new", state, keep=2)
    assert path == tmp_path / "new" / "step-00000003"
    assert same(load_quietly(tmp_path / "new"), state)
    assert str(load_quietly(tmp_path / "new").ema["a"][0].item()) == "-0.0"


def test_no_checkpoints(tmp_path):
    assert load_quietly(tmp_path) is None
    assert load_quietly(tmp_path / "missing") is None
    assert list_states(tmp_path / "missing") == []


def make_problem():
    """A small model, an AdamW over its two parameter groups, and data."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    groups = [{"params": list(model[0].parameters()), "lr": 1e-2}, {"params": list(model[2].parameters()), "lr": 3e-2}]
    return model, torch.optim.AdamW(groups, betas=(0.9, 0.999), weight_decay=0.1, fused=True), torch.randn(16, 4)


def steps(model, optimizer, data, count):
    for _ in range(count):
        optimizer.zero_grad()
        model(data).square().mean().backward()
        optimizer.step()


def test_an_optimizer_continues_as_if_not_interrupted(tmp_path):
    model, optimizer, data = make_problem()
    steps(model, optimizer, data, 3)
    save_state(tmp_path, RunState(3, dict(model.state_dict()), {}, pack_optimizer(optimizer)), keep=1)
    steps(model, optimizer, data, 4)

    again, other, _ = make_problem()
    state = load_quietly(tmp_path)
    again.load_state_dict(state.learnt)
    unpack_optimizer(other, state.optimizer)
    shutil.rmtree(tmp_path)
    steps(again, other, data, 4)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
    ours, theirs = other.state_dict(), optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for index, values in theirs["state"].items():
        assert all(torch.equal(ours["state"][index][key], value) for key, value in values.items())


def test_an_optimizer_that_has_done_nothing(tmp_path):
    _, optimizer, _ = make_problem()
    assert pack_optimizer(optimizer) == {}
    unpack_optimizer(optimizer, {})
    assert optimizer.state_dict()["state"] == {}


def test_only_the_newest_are_kept(tmp_path):
    for step in (9, 10, 99, 100, 1000):
        save_state(tmp_path, make_state(step), keep=3)
    assert names_in(tmp_path) == ["step-00000099", "step-00000100", "step-00001000"]
    assert load_quietly(tmp_path).step == 1000


def test_a_whole_checkpoint_is_not_written_again(tmp_path):
    path = save_state(tmp_path, make_state(5), keep=3)
    before = (path / "manifest.json").stat().st_ino
    save_state(tmp_path, make_state(5), keep=3)
    assert (path / "manifest.json").stat().st_ino == before
