"""LoRA adapters: which layers, how many parameters, identity at the start, the same outputs in peft itself."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from dmp_cli.config import BackboneRecord, TrainConfig
from dmp_cli.errors import CheckpointError, ConfigError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching import lora_file as adapterfile
from dmp_cli.patching.compatibility import backbone_digest
from dmp_cli.patching.lora import create_adapter, find_layers
from dmp_cli.patching.lora_file import load_adapter, save_adapter
from dmp_cli.storage.weights import digest_tensors
from dmp_cli.training.methods import prepare
from tests.builders import call_of, tiny_dit

# rank * (in + out) of qkv, proj, fc1 and fc2 in a block of width 16 with an MLP of 32
PER_RANK = (16 + 48) + (16 + 16) + (16 + 32) + (32 + 16)
FILES = {"adapter_config.json", "adapter_model.safetensors", "dmp.json"}


def known(**changes):
    """A tiny DiT that knows where it is from."""
    backbone = tiny_dit(**changes)
    digest = backbone_digest(backbone)
    backbone.record = BackboneRecord(family="dit", sizes=backbone.sizes, source="here.pt", digest=digest)
    return backbone


def create(backbone, *, rank=4, targets=None, seed=0):
    return create_adapter(backbone, rank=rank, targets=targets, seed=seed)


def fill(adapter, seed=1):
    source = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters.values():
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=source))


@pytest.fixture
def saved(tmp_path):
    """A filled adapter's folder, and what the backbone with it answers."""
    backbone = known()
    adapter = create(backbone)
    fill(adapter)
    save_adapter(tmp_path / "adapter", adapter, training={"steps_done": 3})
    return tmp_path / "adapter", backbone(*call_of(backbone)).detach()


@pytest.mark.parametrize("depth", [1, 3, 6])  # 24 layers of 6 blocks are more than peft takes name by name
@pytest.mark.parametrize("rank", [1, 4])
def test_parameters_by_hand(rank, depth):
    adapter = create(tiny_dit(depth=depth), rank=rank)
    assert sum(parameter.numel() for parameter in adapter.parameters.values()) == depth * rank * PER_RANK
    assert len(adapter.layers) == 4 * depth
    assert {parameter.dtype for parameter in adapter.parameters.values()} == {torch.float32}


def test_only_the_adapter_learns_and_the_patch_embedder_stays_out():
    backbone = tiny_dit().train()
    adapter = create(backbone)
    learning = {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad}
    assert learning == {id(parameter) for parameter in adapter.parameters.values()}
    assert not any("x_embedder" in name for name in adapter.parameters)  # its layer is called proj too
    assert not backbone.training


@pytest.mark.parametrize("depth", [3, 6])
def test_a_fresh_adapter_changes_no_bit(depth):
    backbone, call = tiny_dit(depth=depth), call_of(tiny_dit())
    before = backbone(*call)
    adapter = create(backbone)
    assert torch.equal(backbone(*call), before)
    up = adapter.parameters["base_model.model.blocks.0.attn.qkv.lora_B.weight"]
    up.data.fill_(0.1)
    assert not torch.equal(backbone(*call), before)


def test_the_update_is_b_times_a():
    """alpha = rank: W x + B A x, which weights W + B A give too."""
    backbone, merged, call = tiny_dit(), tiny_dit(), call_of(tiny_dit())
    adapter = create(backbone, targets=("attn.qkv", "fc2"))
    fill(adapter)
    for layer in adapter.layers:
        down, up = (adapter.parameters[f"base_model.model.{layer}.lora_{part}.weight"] for part in "AB")
        merged.get_submodule(layer).weight.data += (up @ down).detach()
    torch.testing.assert_close(backbone(*call), merged(*call), rtol=1e-4, atol=1e-5)
    assert adapter.layers == tuple(f"blocks.{i}.{name}" for i in range(3) for name in ("attn.qkv", "mlp.fc2"))


def test_the_start_is_a_function_of_the_seed():
    def values(seed):
        torch.rand(seed + 1)  # torch's own random state must not matter
        return create(tiny_dit(), seed=seed).parameters

    one, same, other = values(0), values(0), values(1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    for name, value in one.items():
        if "lora_A" in name:
            assert not torch.equal(value, other[name])
            assert 0.5 < value.abs().max() * value.shape[1] ** 0.5 <= 1  # uniform in +-1/sqrt(in)
        else:
            assert not value.any()
    first, second = (one[f"base_model.model.blocks.{i}.attn.qkv.lora_A.weight"] for i in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("targets", [("qkv", "to_q"), ("q",), ("",), ("norm1",), ()])
def test_names_that_match_no_layer(targets):
    with pytest.raises(ConfigError, match="--lora-targets") as raised:
        find_layers(tiny_dit(), targets)
    assert "attn.qkv, attn.proj, mlp.fc1, mlp.fc2, adaLN_modulation.1" in raised.value.hint


def test_training_leaves_the_backbone_as_it_was():
    backbone = known()
    config = TrainConfig(method="lora", data=Path("images"), lr=0.5)
    trainee = prepare(config, backbone=backbone, codec=PixelCodec(3))
    (group,) = trainee.groups
    assert group["rate"] == 0.5
    assert trainee.learnt["base_model.model.blocks.2.mlp.fc2.lora_A.weight"].shape == (16, 32)  # the default rank
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        backbone(*call_of(backbone)).square().mean().backward()
        optimizer.step()
    assert all(parameter.any() for parameter in trainee.learnt.values())
    base = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in backbone.state_dict().items()
        if ".lora_" not in name
    }
    assert digest_tensors(base, without={"pos_embed"}) == backbone.record.digest


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
        patched.setattr(adapterfile, "staged_folder", None)  # the folder is not made anew
        save_adapter(path, adapter, training={"steps_done": 4})
    changed = {file.name for file in path.iterdir() if file.read_bytes() != before[file.name]}
    assert changed == {"adapter_model.safetensors"}
    narrow = create(known(), rank=2)
    save_adapter(path, narrow, training={})
    assert {file.name for file in path.iterdir()} == FILES
    assert load_adapter(path, known()).rank == 2


def test_an_adapter_of_a_nameless_backbone_is_not_written(tmp_path):
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
        ("adapter_config.json", {"use_dora": True}),
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
    assert raised.value.hint == "pip install 'dmp-cli[lora]'"
    with pytest.raises(ConfigError, match="--adapter needs peft"):
        load_adapter(saved[0], backbone)
    assert backbone.blocks[0].mlp.fc1.weight.requires_grad
