"""Foreign weight files: what is read, what is refused, and that nothing in them ever runs."""

import argparse
import collections
import hashlib
import io
import os
import pathlib
import pickle
import random
import sys
import types
import typing
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dmp_cli.errors import CheckpointError
from dmp_cli.storage.weights import digest_tensors, load_strictly, read_safetensors, read_weights
from tests.builders import tiny_dit

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1.0, -0.0]), "scale": torch.tensor(2.0)}
OTHER = {name: tensor + 100 for name, tensor in WEIGHTS.items()}


def write(path, content, **options):
    torch.save(content, path, **options)
    return path


def same(tensors, expected):
    return tensors.keys() == expected.keys() and all(torch.equal(tensors[name], expected[name]) for name in expected)


def prefixed(prefix):
    return {prefix + name: tensor for name, tensor in WEIGHTS.items()}


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


@pytest.fixture
def omegaconf_checkpoint(tmp_path, monkeypatch):
    """A checkpoint with a config object pickled as OmegaConf does it, though OmegaConf is not installed."""

    def kind(name):
        return type(name.rpartition(".")[2], (), {"__module__": "omegaconf." + name.rpartition(".")[0]})

    names = (
        "dictconfig.DictConfig",
        "listconfig.ListConfig",
        "base.ContainerMetadata",
        "base.Metadata",
        "nodes.AnyNode",
    )
    kinds = [kind(name) for name in names]

    def make(index, **state):
        made = kinds[index]()
        made.__dict__.update(state)
        return made

    def node(value):
        return make(4, _metadata=make(3, ref_type=typing.Any, object_type=None), _parent=None, _val=value)

    about = make(2, ref_type=typing.Any, object_type=dict, resolver_cache=collections.defaultdict(dict, a={}))
    blocks = make(1, _content=[node(1), node(2.5)], _metadata=make(2, object_type=list))
    config = make(0, _metadata=about, _content={"model": node("DiT-B/2"), "on": node(True), "blocks": blocks})
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
        for made in kinds:
            if made.__module__ not in sys.modules:
                context.setitem(sys.modules, made.__module__, types.ModuleType(made.__module__))
            setattr(sys.modules[made.__module__], made.__name__, made)
        path = write(tmp_path / "a.pt", {"model": WEIGHTS, "config": config, "opt": {}})
    assert "omegaconf.dictconfig" not in sys.modules
    return path


def test_an_omegaconf_config_without_omegaconf(omegaconf_checkpoint):
    with pytest.raises(pickle.UnpicklingError):
        torch.load(omegaconf_checkpoint, weights_only=True)
    assert same(read_weights(omegaconf_checkpoint).tensors, WEIGHTS)
    assert not [name for name in sys.modules if name.split(".")[0] == "omegaconf"]
    with pytest.raises(pickle.UnpicklingError):  # the stand-ins are gone again
        torch.load(omegaconf_checkpoint, weights_only=True)


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.fixture
def attacks(tmp_path):
    """Objects that leave a file behind when something executes them, and that file."""
    mark = tmp_path / "executed"
    open_it = f"open({str(mark)!r}, 'w')"
    return mark, {
        "posix.system": Call(os.system, f"touch {mark}"),
        "builtins.eval": Call(eval, open_it),
        "builtins.exec": Call(exec, open_it),
        "builtins.getattr": Call(getattr, Call(eval, open_it), "name"),
        "io.open": Call(io.open, str(mark), "w"),
    }


@pytest.mark.parametrize("name", ["posix.system", "builtins.eval", "builtins.exec", "builtins.getattr", "io.open"])
@pytest.mark.parametrize("zipped", [True, False], ids=["", "old-format"])
def test_code_is_refused_and_does_not_run(tmp_path, attacks, name, zipped):
    mark, makes = attacks
    for content in ({"model": WEIGHTS, "x": makes[name]}, makes[name], {"ema": {"a": [(1, {"b": makes[name]})]}}):
        path = write(tmp_path / "a.pt", content, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=name if zipped else r"GLOBAL|refused") as caught:
            read_weights(path)
        assert "weights_only" not in str(caught.value)  # torch's own text advises to execute the file
        assert not mark.exists()
    with open(path, "rb") as file:  # the attack is real
        torch.load(file, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_plain_pickles_and_other_protocols_do_not_run(tmp_path, attacks, protocol):
    mark, makes = attacks
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"model": makes["posix.system"]}, protocol=protocol))
    with pytest.raises(CheckpointError):
        read_weights(tmp_path / "a.pt")
    for zipped in (True, False):
        options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
        with pytest.raises(CheckpointError):
            read_weights(write(tmp_path / "a.pt", {"model": makes["builtins.eval"]}, **options))
    assert not mark.exists()


def test_a_function_under_a_harmless_module_does_not_run(tmp_path):
    mark = tmp_path / "executed"
    source = write(tmp_path / "a.pt", {"model": WEIGHTS, "x": Call(os.system, f"touch {mark}")})
    target = tmp_path / "b.pt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            assert (b"cposix\nsystem\n" in data) == name.endswith("data.pkl")
            new.writestr(name, data.replace(b"cposix\nsystem\n", b"cpathlib\nos.system\n"))
    assert same(read_weights(target).tensors, WEIGHTS)  # an inert stand-in took its place
    assert not mark.exists()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 2700000000\n"
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>\n" * 20


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00", LFS, HTML, b"PK\x03\x04", bytes(5000)])
def test_other_files_under_a_weight_file_name(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_file_renamed_to_the_other_kind(tmp_path):
    write(tmp_path / "a.safetensors", WEIGHTS)
    save_file(WEIGHTS, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        with pytest.raises(CheckpointError, match=r"not a readable|cannot be read") as caught:
            read_weights(tmp_path / name)
        assert "another kind of file" in caught.value.hint


@pytest.mark.parametrize("name", ["a.pt", "old.pt", "a.safetensors"])
def test_cut_files(tmp_path, name):
    path = tmp_path / name
    if name == "a.safetensors":
        save_file(tiny_dit().state_dict(), path)
    else:
        write(path, {"ema": tiny_dit().state_dict()}, _use_new_zipfile_serialization=name == "a.pt")
    data = path.read_bytes()
    for place in range(0, len(data), len(data) // 20):
        path.write_bytes(data[:place])
        with pytest.raises(CheckpointError):
            read_weights(path)


@pytest.mark.parametrize("name", ["a.pt", "old.pt", "a.safetensors"])
@pytest.mark.filterwarnings("ignore")
def test_flipped_bits_never_end_in_a_traceback(tmp_path, name):
    path, numbers = tmp_path / name, random.Random(0)
    if name == "a.safetensors":
        save_file(WEIGHTS, path)
    else:
        write(path, {"ema": WEIGHTS}, _use_new_zipfile_serialization=name == "a.pt")
    data, refused = path.read_bytes(), 0
    for _ in range(150):
        damaged = bytearray(data)
        damaged[numbers.randrange(len(data))] ^= 1 << numbers.randrange(8)
        path.write_bytes(damaged)
        try:
            read_weights(path)
        except CheckpointError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("content", [[1, 2], {}, {"model": {}}, {"lr": 0.1}, {0: torch.ones(1)}, torch.ones(2), "text"])
def test_files_without_weights(tmp_path, content):
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_weights(write(tmp_path / "a.pt", content))


def test_paths_that_are_no_weight_files(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_weights(tmp_path / "a.pt")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(CheckpointError, match="is not a weight file"):
        read_weights(tmp_path / "a.txt")
    with pytest.raises(CheckpointError, match=r"lacks config.json"):
        read_weights(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x80"])
def test_a_diffusers_folder_with_a_bad_config(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    save_file(WEIGHTS, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=r"config.json is not"):
        read_weights(tmp_path)


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
