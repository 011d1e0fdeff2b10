"""``merge`` and ``detach``: the table of ``dmp patch --export``, and the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dmp_cli import DMPError, attach, detach, load_patch, merge
from dmp_cli.backbones import Backbone
from tests.builders import call_of, filled_patch
from tests.commands.conftest import Run

Load = Callable[[], Backbone]


def test_the_table_is_that_of_the_command(run: Run, checkpoint: Path, load: Load) -> None:
    backbone = load()
    filled_patch(backbone).save_pretrained("p.safetensors")
    run("patch", "--export", "p.safetensors", "--sampler", "ddim", "--steps", 4, "-o", "typed.safetensors")
    patched = attach(backbone, load_patch(Path("p.safetensors")))
    table = merge(patched, "called.safetensors", sampler="ddim", steps=4)
    assert Path("called.safetensors").read_bytes() == Path("typed.safetensors").read_bytes()
    read = load_file("called.safetensors")
    assert read.keys() == table.keys()
    assert all(torch.equal(read[name], table[name]) for name in table)
    dense = merge(patched, sampler="ddim", steps=4, dense=True)
    assert torch.equal(dense["mixtures.1"], table["weights.1"] * table["prompts.1"])


def test_what_is_not_exact_is_refused(load: Load) -> None:
    backbone = load()
    with pytest.raises(DMPError, match="reads the conditioning"):
        merge(attach(backbone, filled_patch(backbone, gate_input="conditioning")))
    detach(backbone)
    with pytest.raises(DMPError, match="low-rank experts"):
        merge(attach(backbone, filled_patch(backbone, experts="lora")))
    patched = attach(backbone, filled_patch(backbone), name="second")
    with pytest.raises(DMPError, match=r"merge\(\) takes one attached patch, and here are 2"):
        merge(patched)
    patched.detach()
    with pytest.raises(DMPError, match="and here are 0"):
        merge(patched)


def test_detach_takes_whatever_was_attached(load: Load) -> None:
    backbone = load()
    with torch.no_grad():
        bare = backbone(*call_of(backbone))
        patched = attach(backbone, filled_patch(backbone))
        attach(backbone, filled_patch(backbone, seed=1), name="second")
        assert detach(patched, "second") is backbone
        assert list(patched.patches) == ["default"]
        assert detach(backbone) is backbone
        assert not patched.patches
        assert torch.equal(backbone(*call_of(backbone)), bare)
    assert detach(backbone) is backbone
