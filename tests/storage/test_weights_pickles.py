"""Pickled weight files: unknown objects become inert stand-ins, and nothing in a file ever runs."""

import collections
import io
import os
import pickle
import sys
import types
import typing
import zipfile

import pytest
import torch

from dmp_cli.errors import CheckpointError
from dmp_cli.storage.weights import read_weights

from .weight_files import WEIGHTS, same, write


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
