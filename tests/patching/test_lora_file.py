"""An adapter's folder: read by peft and by this tool, written whole, and refused if anything differs."""

import json
import shutil
import sys

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from dmp_cli.errors import CheckpointError, ConfigError
from dmp_cli.patching import lora_file
from dmp_cli.patching.lora_file import load_adapter, save_adapter
from tests.builders import call_of, tiny_dit
from tests.patching.adapters import create, fill, known

FILES = {"adapter_config.json", "adapter_model.safetensors", "dmp.json"}


@pytest.fixture
def saved(tmp_path):
    """The folder of a filled adapter, and the output of the backbone with this adapter."""
    backbone = known()
    adapter = create(backbone)
    fill(adapter)
    save_adapter(tmp_path / "adapter", adapter, training={"steps_done": 3})
    return tmp_path / "adapter", backbone(*call_of(backbone)).detach()


def test_peft_itself_loads_it(saved):
    path, expected = saved
    again = known()
    load_adapter(path, again)
    assert torch.equal(again(*call_of(again)), expected)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    theirs = PeftModel.from_pretrained(known(), str(path)).eval()
    assert torch.equal(theirs(*call_of(again)), expected)


def test_peft_loads_an_adapter_of_many_layers(tmp_path):
    backbone = known(depth=6)
    adapter = create(backbone)
    fill(adapter)
    save_adapter(tmp_path / "adapter", adapter, training={})
    theirs = PeftModel.from_pretrained(known(depth=6), str(tmp_path / "adapter")).eval()
    assert torch.equal(theirs(*call_of(backbone)), backbone(*call_of(backbone)))


def test_same_content_same_bytes_and_only_the_tensors_are_replaced(saved, tmp_path, monkeypatch):
    path, _ = saved
    adapter = create(known())
    fill(adapter)
    save_adapter(tmp_path / "twin", adapter, training={"steps_done": 3})
    before = {name: (path / name).read_bytes() for name in FILES}
    assert {file.name: file.read_bytes() for file in (tmp_path / "twin").iterdir()} == before
    fill(adapter, seed=2)
    with monkeypatch.context() as patched:
        patched.setattr(lora_file, "staged_folder", None)  # the folder is not made anew
        save_adapter(path, adapter, training={"steps_done": 4})
    changed = {file.name for file in path.iterdir() if file.read_bytes() != before[file.name]}
    assert changed == {"adapter_model.safetensors"}
    narrow = create(known(), rank=2)
    save_adapter(path, narrow, training={})
    assert {file.name for file in path.iterdir()} == FILES
    assert load_adapter(path, known()).rank == 2


def test_an_adapter_without_a_backbone_record_is_not_written(tmp_path):
    with pytest.raises(ConfigError, match="does not know its backbone"):
        save_adapter(tmp_path / "adapter", create(tiny_dit()), training={})


def test_another_backbone_is_refused_untouched(saved):
    path, _ = saved
    other = known(seed=5)
    with pytest.raises(CheckpointError, match=r"another backbone: here\.pt"):
        load_adapter(path, other)
    assert isinstance(other.blocks[0].mlp.fc1, torch.nn.Linear)
    changed = known()
    changed.recorded_stamp = changed.stamp()
    changed.blocks[0].mlp.fc1.bias.requires_grad_(False).add_(1)
    with pytest.raises(CheckpointError, match="another backbone"):
        load_adapter(path, changed)


NAME = "base_model.model.blocks.0.attn.qkv.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(NAME), rf"missing \(1\): {NAME}"),
        (lambda tensors: tensors.update(more=torch.zeros(1)), r"unexpected \(1\): more"),
        (
            lambda tensors: tensors.update({NAME: torch.zeros(5, 16)}),
            r"misshapen \(1\): .*\(5, 16\) instead of \(4, 16\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(saved, change, message):
    path, _ = saved
    tensors = load_file(path / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, path / "adapter_model.safetensors")
    backbone = known()
    with pytest.raises(CheckpointError, match=message):
        load_adapter(path, backbone)
    assert isinstance(backbone.blocks[0].attn.qkv, torch.nn.Linear)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("adapter_config.json", {"use_rslora": True}),
        ("adapter_config.json", {"r": "4"}),
        ("adapter_config.json", {"r": 0}),
        ("adapter_config.json", {"lora_alpha": 8}),
        ("adapter_config.json", {"target_modules": "qkv"}),
        ("adapter_config.json", {"target_modules": [["qkv"]]}),
        ("adapter_config.json", {"target_modules": ["blocks.9.attn.qkv"]}),
        ("dmp.json", {"format_version": 2}),
        ("dmp.json", {"backbone": None}),
    ],
)
def test_a_changed_description_is_refused(saved, name, change):
    file = saved[0] / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=name):
        load_adapter(saved[0], known())


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("content", [None, b"", b"[]"])
def test_a_damaged_folder_is_refused(saved, name, content):
    (saved[0] / name).unlink() if content is None else (saved[0] / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load_adapter(saved[0], known())


def test_no_folder_at_all(saved):
    shutil.rmtree(saved[0])
    with pytest.raises(CheckpointError, match="cannot read"):
        load_adapter(saved[0], known())


def test_without_peft_nothing_is_touched(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    backbone = known()
    with pytest.raises(ConfigError, match="--method lora needs peft") as raised:
        create(backbone)
    assert raised.value.hint == "pip install 'peft>=0.13'"
    with pytest.raises(ConfigError, match="--adapter needs peft"):
        load_adapter(saved[0], backbone)
    assert backbone.blocks[0].mlp.fc1.weight.requires_grad
