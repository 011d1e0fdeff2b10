"""Low-rank experts under the gate: the identity, the formula, its gradients, counts, files, and every variant."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from dmp_cli.backbones import Backbone, as_backbone, build_backbone
from dmp_cli.config import PatchConfig, build
from dmp_cli.errors import ConfigError, PatchError
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.balance import LoadNoise
from dmp_cli.patching.compatibility import check_variant
from dmp_cli.patching.export import bake_table
from dmp_cli.patching.file import load_patch, read_record, save_patch
from dmp_cli.patching.gates import Gating
from dmp_cli.patching.prompts import Patch, add_mixture
from tests.backbones.pipelines import tiny_pixart, tiny_unet
from tests.builders import call_of, filled_patch, tiny_dit, zero_patch
from tests.patching.adapters import create
from tests.patching.gatings import measured

VARIANTS: list[dict[str, Any]] = [
    {"experts": "lora"},
    {"experts": "lora", "scope": "uniform", "num_experts": 3, "expert_rank": 2},
    {"experts": "lora", "selection": "hard", "top_k": 2},
    {"experts": "lora", "gate": "constant", "gate_scale": 2},
    {"experts": "lora", "gate": "none"},
    {"experts": "lora", "gate_input": "conditioning", "expert_targets": ("qkv",)},
    {"experts": "lora", "depth": 1, "expert_rank": 1},
    {"experts": "both"},
    {"experts": "both", "scope": "uniform", "selection": "hard"},
    {"experts": "both", "position": "prepend", "num_prompts": 3},
    {"experts": "both", "gate": "constant"},
]


def pixart() -> Backbone:
    return as_backbone(tiny_pixart())


def unet() -> Backbone:
    return as_backbone(tiny_unet())


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_fresh_patch_changes_no_bit(variant: dict[str, Any]) -> None:
    backbone = tiny_dit()
    call = call_of(backbone)
    with torch.no_grad():
        before = backbone(*call)
        patched = attach(backbone, zero_patch(backbone, **variant))
        if patched.patch.config.position == "add":
            assert torch.equal(patched(*call), before)
        with patched.disabled():
            assert torch.equal(patched(*call), before)
        assert torch.equal(patched.detach()(*call), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.modules())


@pytest.mark.parametrize("experts", ["lora", "both"])
@pytest.mark.parametrize("make", [pixart, unet])
def test_on_other_families(make: Any, experts: str) -> None:
    backbone = make()
    patch = zero_patch(backbone, experts=experts)
    texts = torch.zeros(2, 3, 32)

    def call() -> Tensor:
        x = torch.randn(2, *backbone.sample_shape, generator=torch.Generator().manual_seed(0))
        more: dict[str, Any] = {"encoder_hidden_states": texts}
        if make is pixart:
            more |= {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}
        return backbone.core(x, timestep=torch.tensor([10, 900]), **more).sample

    with torch.no_grad():
        before = call()
        patched = attach(backbone, patch)
        assert torch.equal(call(), before)
        for parameter in patch.parameters():
            parameter.fill_(0.3)
        assert not torch.allclose(call(), before)
        with patched.disabled():
            assert torch.equal(call(), before)
    assert all(backbone.core.get_submodule(b.name) is b.module for b in backbone.list_blocks())
    names = [{one.name.rsplit(".", 1)[-1] for one in layers} for layers in patch.expert_layers]
    assert {"to_q", "to_k", "to_v"} <= set.union(*names)


def by_hand(backbone: Any, patch: Patch, call: Any) -> Tensor:
    """Each row alone, through a backbone whose weights are W + sum_e w_e B_e A_e of that row, prompts added before."""
    config, (x, timesteps, labels) = patch.config, call
    with torch.no_grad():
        conditions = labels if config.gate_input == "conditioning" else None
        vector = backbone.gate_vector(timesteps, conditions)
    rows = []
    for row in range(len(x)):
        t = vector[row]
        weights = dict(backbone.named_parameters())
        for i, layers in enumerate(patch.expert_layers):
            logits = None
            if patch.gate is not None:
                inputs = t if config.scope == "uniform" else torch.cat([t, torch.tensor([float(i)]).to(t)])
                logits = (patch.gate.weight @ inputs + patch.gate.bias)[patch.num_prompts :]
            w = expert_weights(config, logits)
            for layer, experts in zip(layers, patch.experts[i], strict=True):
                name = f"blocks.{i}.{layer.name}.weight"
                update = sum(w[e] * experts.up[:, e] @ experts.down[e] for e in range(len(w)))
                weights[name] = weights[name] + update
        one = tuple(None if part is None else part[row : row + 1] for part in call)
        rows.append(functional_call(backbone, weights, one))
    return torch.cat(rows)


def expert_weights(config: PatchConfig, logits: Tensor | None) -> Tensor:
    count = config.num_experts or 4
    if logits is None:
        return torch.full((count,), config.gate_scale / count if config.gate == "constant" else 1.0).double()
    exponents = [math.e**logit for logit in logits]  # type: ignore[operator]
    soft = torch.stack([one / sum(exponents) for one in exponents])
    if config.selection == "soft":
        return soft
    largest = sorted(range(count), key=lambda e: -float(soft[e]))[: config.top_k or 3]
    chosen = torch.tensor([float(e in largest) for e in range(count)], dtype=torch.float64)
    return chosen + soft - soft.detach()


@pytest.mark.parametrize("variant", [one for one in VARIANTS if one["experts"] == "lora"], ids=str)
def test_output_and_gradients_by_hand(variant: dict[str, Any]) -> None:
    backbone = tiny_dit().double()
    patch = filled_patch(backbone, **variant).double()
    for parameter in patch.experts.parameters():
        parameter.data *= 0.3
    x, timesteps, labels = call_of(backbone)
    call = (x.double(), timesteps, labels)
    backbone.requires_grad_(False)
    expected = by_hand(backbone, patch, call)
    expected.pow(2).mean().backward()
    slopes = {name: p.grad.clone() for name, p in patch.named_parameters() if p.grad is not None}
    patch.zero_grad()
    patched = attach(backbone, patch)
    found = patched(*call)
    found.pow(2).mean().backward()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    for name, parameter in patch.named_parameters():
        torch.testing.assert_close(parameter.grad, slopes[name], rtol=1e-7, atol=1e-12, msg=name)
    assert slopes.keys() == dict(patch.named_parameters()).keys()


@pytest.mark.parametrize("scope", ["distinct", "uniform"])
def test_both_are_the_prompts_and_the_experts(scope: str) -> None:
    """A forward is that of the experts by hand, with the mixture of prompts before each block."""
    backbone = tiny_dit().double()
    patch = filled_patch(backbone, experts="both", scope=scope).double()
    for parameter in patch.experts.parameters():
        parameter.data *= 0.3
    x, timesteps, labels = call_of(backbone)
    call = (x.double(), timesteps, labels)
    with torch.no_grad():
        logits = patch(backbone.gate_vector(timesteps, None)).logits
        handles = []
        for i, block in enumerate(backbone.list_blocks()):
            weights = logits[:, i, : patch.num_prompts].softmax(-1)[..., None]
            prompts = patch.prompts[i]

            def put(module: Any, args: Any, weights: Tensor = weights, prompts: Tensor = prompts) -> Any:
                own = weights[put.row, None]  # type: ignore[attr-defined]
                return (add_mixture(args[0], weights=own, prompts=prompts), *args[1:])

            handles.append((put, block.module.register_forward_pre_hook(put)))
        rows = []
        for row in range(len(x)):
            for put, _ in handles:
                put.row = row
            rows.append(by_hand(backbone, patch, tuple(part[row : row + 1] for part in call)))
        for _, handle in handles:
            handle.remove()
        found = attach(backbone, patch)(*call)
    torch.testing.assert_close(found, torch.cat(rows), rtol=1e-9, atol=1e-11)


def test_one_expert_without_a_gate_is_a_lora() -> None:
    backbone, twin, call = tiny_dit(), tiny_dit(), call_of(tiny_dit())
    adapter = create(backbone, rank=3)
    patch = zero_patch(twin, experts="lora", num_experts=1, expert_rank=3, gate="none")
    for i, layers in enumerate(patch.expert_layers):
        for layer, experts in zip(layers, patch.experts[i], strict=True):
            source = torch.Generator().manual_seed(i)
            for part, own in (("A", experts.down), ("B", experts.up)):
                theirs = adapter.parameters[f"base_model.model.blocks.{i}.{layer.name}.lora_{part}.weight"]
                theirs.data = torch.randn(theirs.shape, generator=source)
                own.data = theirs.data.view(own.shape).clone()
    with torch.no_grad():
        torch.testing.assert_close(attach(twin, patch)(*call), backbone(*call), rtol=1e-5, atol=1e-6)
    assert patch.num_parameters() == sum(p.numel() for p in adapter.parameters.values())


def test_counts_by_hand() -> None:
    with torch.device("meta"):
        backbone = build_backbone("dit-l2")
        one, two = (zero_patch(backbone, experts=kind) for kind in ("lora", "both"))
    width, blocks, ranks = 1024, 24, 4 * 4
    layers = (width + 3 * width) + (width + width) + (width + 4 * width) + (4 * width + width)
    assert one.num_parameters() == blocks * ranks * layers + 4 * (width + 1) + 4 == 6_295_560
    assert two.num_parameters() == 6_554_112 + 6_295_560  # the gate's outputs of both, in one matrix
    assert (one.num_prompts, one.num_experts, one.gate_outputs) == (0, 4, 4)
    assert two.parts == [slice(0, 256), slice(256, 260)]


def test_the_start_is_a_function_of_the_seed() -> None:
    one, again, other = (
        Patch(p.config, hidden_shapes=p.hidden_shapes, gate_width=16, expert_layers=p.expert_layers, seed=seed)
        for p, seed in ((zero_patch(tiny_dit(), experts="lora"), seed) for seed in (1, 1, 2))
    )
    layers = [layer for block in one.experts for layer in block]  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(layers[0].down, next(iter(other.experts[0])).down)  # type: ignore[arg-type]
    assert not torch.equal(layers[0].down, layers[4].down)  # the same layer of the next block
    for layer in layers:
        assert not layer.up.any()
        assert layer.down.abs().max() <= 1 / layer.down.shape[-1] ** 0.5


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_file_round_trip(tmp_path: Any, variant: dict[str, Any]) -> None:
    from dmp_cli.backbones import load_backbone
    from tests.builders import write_meta_checkpoint
    from tests.patching.test_file import make_patch

    path = write_meta_checkpoint(tmp_path / "a.pt", tiny_dit())
    backbone = load_backbone(str(path), num_classes=4, num_heads=2)
    patch = make_patch(backbone, **variant)
    save_patch(tmp_path / "a.safetensors", patch)
    read = load_patch(tmp_path / "a.safetensors")
    assert read.record == patch.record == read_record(tmp_path / "a.safetensors")
    assert read.expert_layers == patch.expert_layers
    with torch.no_grad():
        outputs = []
        for one in (patch, read):
            patched = attach(backbone, one)
            outputs.append(patched(*call_of(backbone)))
            patched.detach()
    assert torch.equal(*outputs)


def test_another_backbone_is_refused_before_any_hook() -> None:
    patch = zero_patch(tiny_dit(), experts="lora")
    wider = tiny_dit(mlp_size=48)
    with pytest.raises(PatchError, match=r"experts of mlp\.fc1, 16 -> 32, which is not in blocks\.0"):
        attach(wider, patch)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in wider.modules())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_experts": 4}, "--num-experts is about low-rank experts; ask for them with --experts lora or both"),
        ({"experts": "lora", "gate": "attention"}, "low-rank experts have no vector"),
        ({"experts": "both", "gate": "attention"}, "low-rank experts have no vector"),
        ({"experts": "lora", "position": "prepend"}, "--position is about prompts"),
        ({"experts": "lora", "init": "random"}, "--init is about prompts"),
        ({"experts": "both", "selection": "hard", "top_k": 3}, "75 % of each"),
        ({"experts": "lora", "num_experts": 0}, "--num-experts 0"),
    ],
)
def test_options_that_make_no_patch(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build(PatchConfig, **options)
    assert reason in raised.value.message


def test_what_a_backbone_cannot_have() -> None:
    with pytest.raises(ConfigError, match="--expert-targets 'qkw': no linear layer") as raised:
        check_variant(tiny_dit(), PatchConfig(experts="lora", expert_targets=("qkw",)))
    assert "attn.qkv" in str(raised.value.hint)
    with pytest.raises(ConfigError, match="--top-k 5: a block has 4 experts"):
        check_variant(tiny_dit(), PatchConfig(experts="lora", selection="hard", top_k=5))
    check_variant(unet(), PatchConfig(experts="lora", selection="hard"))  # experts have no grid
    with pytest.raises(ConfigError, match="--selection hard keeps the top k prompts"):
        check_variant(unet(), PatchConfig(experts="both", selection="hard"))
    patched = attach(tiny_dit(), zero_patch(tiny_dit(), experts="lora"))
    with pytest.raises(ConfigError, match="low-rank experts inside them"):
        bake_table(patched, [1])


def test_prompts_are_the_default_and_leave_no_trace() -> None:
    assert PatchConfig(experts="prompts") == PatchConfig()
    assert "experts" not in PatchConfig(experts="prompts").model_dump()


def test_balance_adds_up_the_parts() -> None:
    """Importance and load losses of prompts and experts are those of two gates, one for each."""
    source = torch.Generator().manual_seed(0)
    logits, vector = torch.randn(5, 3, 10, generator=source), torch.randn(5, 8, generator=source)
    noise, parts = torch.randn(5, 10, generator=source), [slice(0, 6), slice(6, 10)]
    load_noise = LoadNoise(gate_width=8, num_prompts=10)
    load_noise.weight.data = torch.randn(8, 10, generator=source)
    weights = torch.cat([logits[..., part].softmax(-1) for part in parts], dim=-1)
    whole = Gating(weights, logits, vector)
    found, _ = measured(whole, load_noise=load_noise, noise=noise, parts=parts)
    importance, load = [], []
    for part in parts:
        own = LoadNoise(gate_width=8, num_prompts=part.stop - part.start)
        own.weight.data = load_noise.weight.data[:, part]
        gating = Gating(weights[..., part], logits[..., part], vector)
        one, _ = measured(gating, load_noise=own, noise=noise[:, part])
        importance.append(one.importance)
        load.append(one.load)
    torch.testing.assert_close(found.importance, importance[0] + importance[1])
    torch.testing.assert_close(found.load, load[0] + load[1])
    assert min(float(one) for one in (*importance, *load)) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision(dtype: torch.dtype) -> None:
    """Zero experts change nothing; others act as in float32 as far as the precision allows, also under autocast."""
    backbone = tiny_dit()
    x, timesteps, labels = call_of(backbone)
    patch = filled_patch(backbone, experts="lora")
    for parameter in patch.experts.parameters():
        parameter.data *= 0.1
    patched = attach(backbone, patch)
    with torch.no_grad():
        exact = patched(x, timesteps, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = patched(x, timesteps, labels)
        patched.detach()
        half = backbone.to(dtype)
        bare = half(x.to(dtype), timesteps, labels)
        with pytest.warns(UserWarning, match="half precision"):
            inside = attach(half, patch)
        assert {parameter.dtype for parameter in patch.parameters()} == {torch.float32}
        found = inside(x.to(dtype), timesteps, labels)
        inside.detach()
        with pytest.warns(UserWarning, match="half precision"):
            zero = attach(half, zero_patch(half, experts="lora"))
        assert torch.equal(zero(x.to(dtype), timesteps, labels), bare)
    for one in (mixed, found):
        assert (one.float() - exact).norm() < 0.05 * exact.norm()
        assert (one.float() - exact).norm() < 0.3 * (bare.float() - exact).norm()
