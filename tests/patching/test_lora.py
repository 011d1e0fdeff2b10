"""LoRA adapters: their layers, the number of parameters, the start, and training. Files: ``test_lora_file``."""

from pathlib import Path

import pytest
import torch

from dmp_cli.config import TrainConfig
from dmp_cli.errors import ConfigError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching.lora import find_layers
from dmp_cli.storage.strict import digest_tensors
from dmp_cli.training.methods import prepare
from tests.builders import call_of, tiny_dit
from tests.patching.adapters import create, fill, known

# rank * (in + out) of qkv, proj, fc1 and fc2 in a block of width 16 with an MLP of 32
PER_RANK = (16 + 48) + (16 + 16) + (16 + 32) + (32 + 16)


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
    """With alpha = rank a layer computes W x + B A x, the same as a layer with weights W + B A."""
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
