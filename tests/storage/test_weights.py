"""Weight files: where weights are found in them, how a module loads them, and what their digest sees."""

import argparse
import collections
import hashlib
import pathlib
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dmp_cli.errors import CheckpointError
from dmp_cli.storage.strict import digest_tensors, load_strictly
from dmp_cli.storage.weights import read_safetensors, read_weights

from .weight_files import WEIGHTS, prefixed, same, write

OTHER = {name: tensor + 100 for name, tensor in WEIGHTS.items()}


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        collections.OrderedDict(WEIGHTS),
        {"ema": WEIGHTS},
        {"model": WEIGHTS},
        {"model": OTHER, "ema": WEIGHTS, "opt": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": []}},
        {"state_dict": WEIGHTS, "epoch": 3},
        {"model": {"state_dict": WEIGHTS}},
        {"ema": None, "model": WEIGHTS},
        prefixed("_orig_mod."),
        prefixed("module."),
        prefixed("module._orig_mod."),
        {"ema": prefixed("_orig_mod.module.")},
    ],
    ids=lambda content: "-".join(list(content)[:2]),
)
@pytest.mark.parametrize("zipped", [True, False], ids=["", "old-format"])
def test_where_weights_are_found(tmp_path, content, zipped):
    weights = read_weights(write(tmp_path / "a.pt", content, _use_new_zipfile_serialization=zipped))
    assert same(weights.tensors, WEIGHTS)
    assert weights.config is None
    assert weights.metadata == {}


def test_a_prefix_that_only_some_names_have_stays(tmp_path):
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert same(read_weights(write(tmp_path / "a.pt", mixed)).tensors, mixed)


def test_safetensors_with_prefix_and_metadata(tmp_path):
    save_file(prefixed("module."), tmp_path / "a.safetensors", {"who": "me"})
    weights = read_weights(tmp_path / "a.safetensors")
    assert same(weights.tensors, WEIGHTS)
    assert weights.metadata == {"who": "me"}
    save_file(WEIGHTS, tmp_path / "b.SAFETENSORS")
    assert same(read_weights(tmp_path / "b.SAFETENSORS").tensors, WEIGHTS)
    assert read_safetensors(tmp_path / "b.SAFETENSORS")[1] == {}


@pytest.mark.parametrize("zipped", [True, False], ids=["", "old-format"])
def test_what_training_scripts_leave_beside_the_weights(tmp_path, zipped):
    beside = {
        "args": argparse.Namespace(model="DiT-B/2", results=pathlib.Path("results") if zipped else None),
        "more": types.SimpleNamespace(lr=1e-4),
        "best": np.float64(3.5),
        "curve": np.arange(3.0),
        "seen": collections.defaultdict(list, a=[1]),
    }
    path = write(tmp_path / "a.pt", {"model": WEIGHTS, **beside}, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(path).tensors, WEIGHTS)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.tensor(0.5))


def test_loading_is_exact_and_in_float32(tmp_path):
    module = Small()
    load_strictly(module, {**WEIGHTS, "a.weight": WEIGHTS["a.weight"].half()}, source=tmp_path)
    assert same(module.state_dict(), WEIGHTS)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert str(module.a.bias[1].item()) == "-0.0"


def test_a_loaded_module_owns_its_memory(tmp_path):
    """Neither overwriting the file nor training one tensor may change another."""
    path, module = tmp_path / "a.safetensors", Small()
    save_file(WEIGHTS, path)
    load_strictly(module, read_weights(path).tensors, source=path)
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.write(b"\xff" * size)
    assert same(module.state_dict(), WEIGHTS)
    shared = torch.arange(12.0)
    views = {"a.weight": shared[:6].view(3, 2).T, "a.bias": shared[:2], "scale": shared[0]}
    load_strictly(module, views, source=path)
    with torch.no_grad():
        module.scale += 1
    assert module.a.weight.is_contiguous()
    assert module.a.bias[0] == 0


def test_tensors_that_do_not_fit_are_all_listed_and_nothing_is_loaded(tmp_path):
    module = Small()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    wrong = {"a.weight": torch.zeros(3, 2), "a.bias": torch.zeros(2), "b.weight": torch.zeros(1), "c": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        load_strictly(module, wrong, source=tmp_path / "a.pt")
    lines = caught.value.message.splitlines()
    assert lines[0] == f"{tmp_path / 'a.pt'} does not fit the backbone; nothing was loaded"
    assert lines[1:] == [
        "  missing (1): scale",
        "  unexpected (2): b.weight, c",
        "  misshapen (1): a.weight: (3, 2) instead of (2, 3)",
    ]
    assert same(module.state_dict(), before)


def test_long_lists_are_cut(tmp_path):
    many = {**WEIGHTS, **{f"x{n}": torch.zeros(1) for n in range(9)}}
    with pytest.raises(CheckpointError, match=r"unexpected \(9\): x0, x1, x2, x3, x4, x5, … and 3 more"):
        load_strictly(Small(), many, source=tmp_path)


def test_the_digest_is_of_names_shapes_types_and_bits():
    digest = digest_tensors(WEIGHTS)
    assert digest == digest_tensors(dict(reversed(WEIGHTS.items())))
    assert digest == digest_tensors({**WEIGHTS, "a.weight": WEIGHTS["a.weight"].T.contiguous().T})
    assert digest == digest_tensors({**WEIGHTS, "b": torch.ones(1)}, without=["b", "unknown"])
    others = [
        {**WEIGHTS, "b": torch.ones(1)},
        {**WEIGHTS, "a.weight": WEIGHTS["a.weight"].view(3, 2)},
        {**WEIGHTS, "a.weight": WEIGHTS["a.weight"].view(torch.int32)},
        {**WEIGHTS, "a.bias": torch.tensor([1.0, 0.0])},  # the sign of zero
        {"a.weight": WEIGHTS["a.weight"], "A.bias": WEIGHTS["a.bias"], "scale": WEIGHTS["scale"]},
    ]
    assert len({digest, *map(digest_tensors, others)}) == 6


def test_the_digest_by_hand():
    tensors = {f"block.{n}": torch.full((n % 3, 2), n, dtype=torch.float64) for n in range(60)}
    expected = hashlib.sha256()
    for name in sorted(tensors):
        rows = int(name.rpartition(".")[2]) % 3
        expected.update(f"{name} ({rows}, 2) torch.float64\n".encode() + tensors[name].numpy().tobytes())
    assert digest_tensors(tensors) == expected.hexdigest()


def test_the_digest_sees_every_bit():
    values = WEIGHTS["a.weight"].clone()
    digests = {digest_tensors({"a": values})}
    for place in range(values.numel()):
        for bit in (0, 13, 31):
            changed = values.clone().view(torch.int32).view(-1)
            changed[place] ^= -(2**31) if bit == 31 else 1 << bit
            digests.add(digest_tensors({"a": changed.view(torch.float32).view(2, 3)}))
    assert len(digests) == 1 + 3 * values.numel()
