"""Attaching a patch: what it adds, what it leaves unchanged, and that it can be detached."""

import math

import pytest
import torch

from dmp_cli.backbones import build_backbone
from dmp_cli.config import CodecRecord, PatchConfig
from dmp_cli.patching.attachment import attach, create_patch
from dmp_cli.patching.identity import backbone_digest
from tests.builders import call_of, filled_patch, tiny_dit, zero_patch
from tests.patching.watching import count_hooks, watch

VARIANTS = [{}, {"scope": "uniform"}, {"gate": "constant"}, {"gate": "none"}, {"depth": 2}, {"depth": 0}]


def mixture_weights(patch, vector, index):
    """Gate weights (B, N) from the formula, one number at a time."""
    rows = []
    for values in vector.tolist():
        if patch.gate is None:
            share = 1 / patch.num_prompts if patch.config.gate == "constant" else 1.0
            rows.append([share] * patch.num_prompts)
            continue
        inputs = [*values, float(index)] if patch.config.scope == "distinct" else values
        logits = [
            sum(w * v for w, v in zip(row, inputs, strict=True)) + b
            for row, b in zip(patch.gate.weight.tolist(), patch.gate.bias.tolist(), strict=True)
        ]
        total = sum(math.exp(value) for value in logits)
        rows.append([math.exp(value) / total for value in logits])
    return torch.tensor(rows, dtype=vector.dtype)


def forward_by_hand(backbone, patch, x, timesteps, condition, *, strength=1.0):
    """The DiT's forward, called part by part, with the mixture added in front of each prompted block."""
    vector = backbone.t_embedder(timesteps)
    c = vector + backbone.y_embedder(condition)
    hidden = backbone.x_embedder(x) + backbone.pos_embed
    for index, block in enumerate(backbone.blocks):
        if index < len(patch.prompts):
            weights = mixture_weights(patch, vector, index)
            for b in range(len(hidden)):
                hidden[b] = hidden[b] + strength * weights[b][:, None] * patch.prompts[index]
        hidden = block(hidden, c)
    return backbone._unpatchify(backbone.final_layer(hidden, c))


# --- a new patch and a detached patch change nothing ---------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("learn_sigma", [True, False])
def test_a_new_or_detached_patch_changes_no_bit(variant, dtype, learn_sigma):
    backbone = tiny_dit(learn_sigma=learn_sigma)
    call = call_of(backbone)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        bare = backbone(*call)
        patched = attach(backbone, zero_patch(backbone, **variant))
        assert torch.equal(patched(*call), bare)
        for parameter in patched.patch.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
        assert torch.equal(patched(*call), bare) == (variant.get("depth") == 0)
        with patched.disabled():
            assert torch.equal(patched(*call), bare)
        assert torch.equal(patched(*call), bare) == (variant.get("depth") == 0)
        assert torch.equal(patched.detach()(*call), bare)


def test_the_backbones_weights_and_names_stay_the_same():
    backbone = tiny_dit()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    digest = backbone_digest(backbone)
    patched = attach(backbone, filled_patch(backbone))
    optimizer = torch.optim.SGD(patched.patch.parameters(), lr=1.0)
    patched(*call_of(backbone)).square().mean().backward()
    optimizer.step()
    for now in (backbone, patched.detach()):
        assert list(now.state_dict()) == list(before)
        assert all(torch.equal(tensor, before[name]) for name, tensor in now.state_dict().items())
        assert backbone_digest(now) == digest
    with torch.no_grad():
        backbone.blocks[2].mlp.fc2.bias[0] += 1e-6
    assert backbone_digest(backbone) != digest


def test_detach_restores_flags_and_modes():
    backbone = tiny_dit().train()
    backbone.blocks[1].eval()
    backbone.blocks[0].requires_grad_(False)
    grads = {name: p.requires_grad for name, p in backbone.named_parameters()}
    modes = {name: module.training for name, module in backbone.named_modules()}
    hooks = count_hooks(backbone)
    patched = attach(backbone, filled_patch(backbone))
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not any(module.training for module in backbone.modules())
    assert count_hooks(backbone) == hooks + 4
    assert patched.detach() is backbone
    assert {name: p.requires_grad for name, p in backbone.named_parameters()} == grads
    assert {name: module.training for name, module in backbone.named_modules()} == modes
    assert count_hooks(backbone) == hooks


def test_detaching_twice_leaves_the_next_patch_alone():
    backbone = tiny_dit()
    first = attach(backbone, filled_patch(backbone))
    first.detach()
    second = attach(backbone, filled_patch(backbone, seed=1))
    output = second(*call_of(backbone))
    first.detach()
    assert not any(p.requires_grad for p in backbone.parameters())
    assert torch.equal(second(*call_of(backbone)), output)


def test_only_the_patch_enters_training_mode():
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone))
    assert patched.train() is patched
    assert patched.patch.training
    assert not any(module.training for module in backbone.modules())
    assert not patched.eval().patch.training


def test_disabled_ends_after_an_error_too():
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone))
    call = call_of(backbone)
    output = patched(*call)
    with pytest.raises(KeyError), patched.disabled():
        raise KeyError
    with patched.disabled():
        with patched.disabled():
            pass
        assert not torch.equal(patched(*call), output)  # the inner block does not switch it on again
    assert torch.equal(patched(*call), output)


# --- what is added -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_forward_adds_the_mixture_of_eq_3(variant, strength):
    backbone = tiny_dit().double()
    patch = filled_patch(backbone, **variant).double()
    x, *rest = call_of(backbone)
    with torch.no_grad():
        bare = backbone(x.double(), *rest)
        expected = forward_by_hand(backbone, patch, x.double(), *rest, strength=strength)
        result = attach(backbone, patch, strength=strength)(x.double(), *rest)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(result, bare) == (strength == 0 or variant.get("depth") == 0)


def test_strength_can_be_changed_later():
    backbone = tiny_dit()
    call = call_of(backbone)
    bare = backbone(*call)
    patched = attach(backbone, filled_patch(backbone), strength=0.5)
    half = patched(*call)
    patched.strength = 1
    assert patched.strength == 1.0
    assert not torch.equal(patched(*call), half)
    patched.strength = 0
    assert torch.equal(patched(*call), bare)
    patched.strength = 0.5
    assert torch.equal(patched(*call), half)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_depth_prompts_the_first_blocks(depth):
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone, gate="none", depth=depth))
    before, after = watch(backbone.blocks, prepend=True), watch(backbone.blocks)
    patched(*call_of(backbone))
    for index in range(3):
        added = patched.patch.prompts[index].expand(3, 16, 16) if index < depth else torch.zeros(3, 16, 16)
        torch.testing.assert_close(after[index] - before[index], added, rtol=1e-4, atol=1e-5)


def test_only_the_patch_is_trained():
    backbone = tiny_dit()
    backbone.requires_grad_(True)
    patched = attach(backbone, filled_patch(backbone))
    trainable = {id(p) for p in patched.parameters() if p.requires_grad}
    assert trainable == {id(p) for p in patched.patch.parameters()}
    assert len(trainable) == 5  # three prompts, the gate's weight and bias
    patched(*call_of(backbone)).square().mean().backward()
    assert all(p.grad is None for p in backbone.parameters())
    assert all(p.grad.abs().sum() > 0 for p in patched.patch.parameters())


def test_gating_outside_a_forward():
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone))
    timesteps = torch.tensor([0, 500, 999])
    gating = patched.gating(timesteps)
    for index in range(3):
        expected = mixture_weights(patched.patch, backbone.t_embedder(timesteps), index)
        torch.testing.assert_close(gating.weights[:, index], expected, rtol=1e-4, atol=1e-6)
    gating.weights.square().sum().backward()
    assert patched.patch.gate.weight.grad.abs().sum() > 0
    output = patched(*call_of(backbone))
    asked = watch([patched.patch])
    patched.gating(torch.tensor([7]))  # another batch size, between two forwards
    assert len(asked) == 1  # the hook on the embedder stays out of it
    assert torch.equal(patched(*call_of(backbone)), output)


# --- Table 1 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "patch_count", "classes_1000", "classes_1", "per_cent"),
    [
        ("dit-b2", 2_556_416, 130_512_416, 129_744_416, 1.9588),
        ("dit-l2", 6_554_112, 458_102_816, 457_078_816, 1.4307),
        ("dit-xl2", 8_552_960, 675_129_632, 673_977_632, 1.2669),
    ],
)
def test_counts_of_the_paper(name, patch_count, classes_1000, classes_1, per_cent):
    backbone = build_backbone(name)
    patch = create_patch(backbone, PatchConfig(), codec=CodecRecord(), image_size=256)
    assert patch.num_parameters() == patch_count
    assert backbone.num_parameters() == classes_1000
    assert round(100 * patch.num_parameters() / backbone.num_parameters(), 4) == per_cent
    assert build_backbone(name, num_classes=1).num_parameters() == classes_1
