"""Small run states for the tests of checkpoints."""

import pytest
import torch

from dmp_cli.training.checkpoint import RunState, load_newest

PARTS = ("learnt", "helpers", "optimizer", "ema")


def make_state(step, **changes):
    values = torch.full((4, 3), float(step))
    fields = {
        "learnt": {"a": values, "b": values[0] / 3},
        "helpers": {"w": -values},
        "optimizer": {"0.step": values[0, 0]},
    }
    return RunState(step=step, **{**fields, **changes})


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def same(one, other):
    assert (one.step, one.scaler) == (other.step, other.scaler)
    for part in PARTS:
        ours, theirs = getattr(one, part), getattr(other, part)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    return True


def load_quietly(folder):
    return load_newest(folder, warn=pytest.fail)
