"""The training methods: what each learns and at which rate, and that its values are exchanged and written exactly."""

import math
import re
from pathlib import Path

import pytest
import torch

from dmp_cli.backbones import build_backbone, load_backbone
from dmp_cli.config import BackboneRecord, CodecRecord, PatchConfig, TrainConfig
from dmp_cli.errors import ConfigError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching.attachment import create_patch
from dmp_cli.patching.file import load_patch
from dmp_cli.patching.identity import backbone_digest
from dmp_cli.patching.lora import adapter_shapes, find_layers
from dmp_cli.patching.patched import PatchedBackbone
from dmp_cli.patching.tuned import tuned_shapes
from dmp_cli.training.methods import prepare
from tests.builders import call_of, tiny_dit

PATCH_NAMES = {"prompts.0", "prompts.1", "prompts.2", "gate.weight", "gate.bias"}


def make(method, *, variant=None, backbone=None, **options):
    backbone = backbone or tiny_dit()
    digest = backbone_digest(backbone)
    backbone.record = BackboneRecord(family="dit", sizes=backbone.sizes, source="here.pt", digest=digest)
    config = TrainConfig(method=method, data=Path("images"), lr=0.5, gate_lr=0.25, **options)
    patch_config = None if variant is None else PatchConfig(**variant)
    return prepare(config, backbone=backbone, codec=PixelCodec(3), patch_config=patch_config)


def ids(parameters):
    return [id(parameter) for parameter in parameters]


def trainable(trainee):
    return {name for name, parameter in trainee.denoiser.named_parameters() if parameter.requires_grad}


def test_dmp_learns_the_patch():
    trainee = make("dmp")
    patch = trainee.denoiser.patch
    assert set(trainee.learnt) == PATCH_NAMES
    assert trainable(trainee) == {f"patch.{name}" for name in PATCH_NAMES}
    assert all(trainee.learnt[name] is parameter for name, parameter in patch.named_parameters())
    prompts, gate = trainee.groups
    assert (ids(prompts["params"]), prompts["rate"]) == (ids(patch.prompts), 0.5)
    helpers = list(trainee.load_noise.parameters())
    assert (ids(gate["params"]), gate["rate"]) == (ids([patch.gate.weight, patch.gate.bias, *helpers]), 0.25)
    assert trainee.load_noise.weight.shape == (16, 16)
    assert trainee.file_stem == "patch"


def test_without_a_load_loss_there_is_no_load_noise():
    trainee = make("dmp", balance_load=0)
    assert trainee.load_noise is None
    assert len(trainee.groups[1]["params"]) == 2


@pytest.mark.parametrize("variant", [{"gate": "constant"}, {"gate": "none"}, {"gate": "none", "depth": 2}])
def test_a_gate_that_reads_nothing_leaves_prompts_alone(variant):
    trainee = make("dmp", variant=variant)
    blocks = variant.get("depth", 3)
    assert set(trainee.learnt) == {f"prompts.{index}" for index in range(blocks)}
    assert len(trainee.groups) == 1
    assert trainee.load_noise is None


@pytest.mark.parametrize("variant", [None, {}, {"gate": "none"}, {"depth": 1}])
def test_prompt_tuning_is_the_patch_without_a_gate(variant):
    trainee = make("prompt-tuning", variant=variant)
    patch = trainee.denoiser.patch
    assert patch.config.gate == patch.record.config.gate == "none"
    assert patch.gate is None
    assert set(trainee.learnt) == {f"prompts.{index}" for index in range(1 if variant == {"depth": 1} else 3)}
    assert [group["rate"] for group in trainee.groups] == [0.5]
    assert trainee.load_noise is None


@pytest.mark.parametrize("variant", [{"gate": "constant"}, {"scope": "uniform"}])
def test_prompt_tuning_takes_no_gate(variant):
    backbone = tiny_dit()
    with pytest.raises(ConfigError, match="prompt-tuning has no gate"):
        make("prompt-tuning", variant=variant, backbone=backbone)
    assert backbone.blocks[0].mlp.fc1.weight.requires_grad


@pytest.mark.parametrize("was_frozen", [True, False])
@pytest.mark.parametrize("method", ["full", "scratch"])
def test_full_and_scratch_learn_every_weight_but_positions(method, was_frozen):
    backbone = tiny_dit().train().requires_grad_(not was_frozen)
    trainee = make(method, backbone=backbone)
    everything = {name for name, _ in backbone.named_parameters()} - {"pos_embed"}
    assert trainee.denoiser is backbone
    assert not isinstance(trainee.denoiser, PatchedBackbone)
    assert set(trainee.learnt) == trainable(trainee) == everything
    (group,) = trainee.groups
    assert sorted(ids(group["params"])) == sorted(ids(trainee.learnt.values()))
    assert group["rate"] == 0.5
    assert not backbone.training
    assert (trainee.load_noise, trainee.file_stem) == (None, "backbone")


@pytest.mark.parametrize("method", ["full", "scratch"])
def test_full_and_scratch_take_no_variant(method):
    with pytest.raises(ConfigError, match=f"{method} has no patch"):
        make(method, variant={"gate": "constant"})
    make(method, variant={})  # the default options are accepted


@pytest.mark.parametrize("method", ["dmp", "prompt-tuning"])
@pytest.mark.parametrize(("depth", "reason"), [(0, "leaves nothing to train"), (4, "has 3 blocks")])
def test_depths_that_cannot_be_trained(method, depth, reason):
    backbone = tiny_dit()
    with pytest.raises(ConfigError, match=reason):
        make(method, variant={"depth": depth}, backbone=backbone)
    assert backbone.blocks[0].mlp.fc1.weight.requires_grad


@pytest.mark.parametrize("method", ["dmp", "full"])
def test_holding_other_values_for_a_while(method):
    trainee = make(method)
    call = call_of(trainee.backbone)
    before = {name: (parameter.data_ptr(), parameter.detach().clone()) for name, parameter in trainee.learnt.items()}
    values = {name: torch.full_like(parameter, 0.1) for name, parameter in trainee.learnt.items()}
    output = trainee.denoiser(*call)

    def is_restored():
        return all(
            parameter.data_ptr() == before[name][0] and torch.equal(parameter, before[name][1])
            for name, parameter in trainee.learnt.items()
        )

    with trainee.holding(values):
        assert all(torch.equal(parameter, values[name]) for name, parameter in trainee.learnt.items())
        assert not torch.equal(trainee.denoiser(*call), output)
    assert is_restored()
    assert torch.equal(trainee.denoiser(*call), output)
    assert all((value == 0.1).all() for value in values.values())
    with pytest.raises(KeyError), trainee.holding(values):
        raise KeyError
    assert is_restored()
    del values[list(trainee.learnt)[-1]]
    with pytest.raises(KeyError), trainee.holding(values):
        pass
    assert is_restored()


def test_optimizer_goes_on_after_holding():
    """The average is sampled and written between two steps, which must not change the next step."""
    trainee = make("dmp")
    for parameter in trainee.learnt.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.SGD(trainee.learnt.values(), lr=1.0)
    before = trainee.learnt["prompts.0"].detach().clone()
    with trainee.holding({name: torch.zeros_like(p) for name, p in trainee.learnt.items()}):
        pass
    optimizer.step()
    assert torch.equal(trainee.learnt["prompts.0"], before - 1)


def test_writing_a_patch(tmp_path):
    trainee = make("dmp")
    values = {name: torch.full_like(parameter, 0.1) for name, parameter in trainee.learnt.items()}
    trainee.write(tmp_path / "patch.safetensors", values, {"steps": 7})
    patch = load_patch(tmp_path / "patch.safetensors")
    assert all(torch.equal(parameter, values[name]) for name, parameter in patch.named_parameters())
    assert patch.record.training == {"steps": 7}
    assert patch.record.backbone == trainee.backbone.record
    assert not trainee.learnt["prompts.0"].any()


def test_writing_a_backbone(tmp_path):
    trainee = make("full")
    values = {name: torch.full_like(parameter, 0.1) for name, parameter in trainee.learnt.items()}
    trainee.write(tmp_path / "backbone.safetensors", values, {"steps": 7})
    again = load_backbone(str(tmp_path / "backbone.safetensors"))
    assert again.sizes == trainee.backbone.sizes
    assert torch.equal(again.pos_embed, trainee.backbone.pos_embed)
    assert all((parameter == 0.1).all() for name, parameter in again.named_parameters() if name != "pos_embed")
    assert not any((parameter == 0.1).all() for parameter in trainee.learnt.values())


def counts_of(backbone):
    """How many numbers each method learns of a backbone without weights."""
    layers = find_layers(backbone, None)
    rank = TrainConfig(data=Path("images")).lora_rank
    shapes = {name: adapter_shapes(layers, rank=rank, is_dora=name == "dora") for name in ("lora", "dora")}
    shapes |= {name: tuned_shapes(backbone, name) for name in ("bitfit", "difffit")}
    counts = {name: sum(map(math.prod, own.values())) for name, own in shapes.items()}
    for name, variant in (("dmp", {}), ("prompt-tuning", {"gate": "none"})):
        patch = create_patch(backbone, PatchConfig(**variant), codec=CodecRecord(), image_size=256)
        counts[name] = patch.num_parameters()
    return counts | {"full": backbone.num_parameters() - backbone.pos_embed.numel()}


def test_the_page_on_training_counts_what_every_method_learns():
    rows = [
        line.split("|")[1:-1]
        for line in (Path(__file__).parents[2] / "docs" / "training.md").read_text().splitlines()
        if re.match(r"\| `[a-z-]+`.*[0-9,]{7,} \|$", line)
    ]
    counted = [counts_of(build_backbone(name)) for name in ("dit-l2", "dit-xl2")]
    told = {re.findall(r"`(.*?)`", row[0])[0]: [int(cell.replace(",", "")) for cell in row[-2:]] for row in rows}
    assert told == {name: [each[name] for each in counted] for name in counted[0]}


@pytest.mark.parametrize(("method", "count"), [("lora", 9_216), ("dora", 9_552), ("bitfit", 728), ("difffit", 904)])
def test_the_counts_are_those_of_what_is_trained(method, count):
    """By hand for the tiny DiT: 3 blocks of width 16, an MLP of 32, 5 rows of classes."""
    trainee = make(method)
    assert sum(parameter.numel() for parameter in trainee.learnt.values()) == count
    assert trainee.is_frozen
    assert trainee.file_stem == {"lora": "adapter", "dora": "adapter"}.get(method, "tuned")
    assert ids(trainee.groups[0]["params"]) == ids(trainee.learnt.values())
