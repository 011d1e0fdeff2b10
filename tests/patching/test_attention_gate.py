"""The attention gate (Table 4a) and the authors' noisy logits and balance losses, against slow formulas in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.config import PatchConfig, TrainConfig
from dmp_cli.data.batches import Batch
from dmp_cli.errors import ConfigError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.balance import LoadNoise, authors_importance
from dmp_cli.training.loop import TrainingLoop
from dmp_cli.training.methods import prepare
from tests.builders import call_of, filled_patch, tiny_dit, zero_patch

VARIANTS: list[dict[str, Any]] = [
    {},
    {"scope": "uniform"},
    {"gate_scale": 16.0},
    {"position": "prepend", "num_prompts": 5},
    {"gate_input": "conditioning"},
    {"depth": 2},
]


def slow_scores(patch: Any, vector: torch.Tensor, block: int) -> torch.Tensor:
    """s_n = (W_q p_n) . (W_k [t; i] + b) / sqrt(D) for one image, by loops over the prompts."""
    gate = patch.gate
    depth = [] if patch.config.scope == "uniform" else [float(block)]
    key = gate.key @ torch.cat([vector, torch.tensor(depth, dtype=vector.dtype)]) + gate.bias
    prompts = patch.prompts[block]
    return torch.stack([(gate.query @ prompt) @ key / math.sqrt(len(prompt)) for prompt in prompts])


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_and_gradients_by_hand(variant: dict[str, Any]) -> None:
    backbone = tiny_dit().double()
    patch = filled_patch(backbone, gate="attention", **variant).double()
    vectors = torch.randn(3, patch.gate_width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = patch(vectors).weights
    seeds = torch.randn(weights.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (weights * seeds).sum().backward()
    found = [parameter.grad.clone() for parameter in patch.parameters()]
    patch.zero_grad()
    blocks = range(len(patch.prompts))
    slow = torch.stack([torch.stack([slow_scores(patch, v, i).softmax(0) for i in blocks]) for v in vectors])
    slow = slow * patch.config.gate_scale
    (slow * seeds).sum().backward()
    torch.testing.assert_close(weights, slow, rtol=1e-10, atol=1e-12)
    for gradient, parameter in zip(found, patch.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-8, atol=1e-10)


def test_a_new_attention_gate_changes_nothing_and_its_prompts_learn() -> None:
    backbone = tiny_dit()
    bare = backbone(*call_of(backbone))
    patch = zero_patch(backbone, gate="attention")
    patched = attach(backbone, patch)
    assert torch.equal(patched(*call_of(backbone)), bare)
    weights = patched.gating(torch.tensor([0, 500])).weights
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 16))
    patched(*call_of(backbone)).square().sum().backward()
    assert all(bool(prompts.grad.any()) for prompts in patch.prompts)
    assert patch.num_parameters() == 3 * 16 * 16 + 16 * 16 + 16 * 17 + 16  # prompts, W_q, W_k, b


def test_hard_selection_of_scores() -> None:
    backbone = tiny_dit()
    patch = filled_patch(backbone, gate="attention", selection="hard", top_k=5)
    gating = patch(torch.randn(4, patch.gate_width))
    assert torch.equal(gating.weights.sum(-1).round(), torch.full((4, 3), 5.0))
    assert set(gating.weights.detach().round(decimals=5).unique().tolist()) == {0.0, 1.0}
    assert gating.logits is not None
    chosen = gating.logits.topk(5).indices
    assert torch.equal(gating.weights.detach().topk(5).indices.sort().values, chosen.sort().values)


def test_authors_importance_by_hand() -> None:
    weights = torch.rand(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sums = [float(sum(weights[b, i, n] for i in range(2))) for b in range(3) for n in range(4)]
    mean = sum(sums) / len(sums)
    variance = sum((value - mean) ** 2 for value in sums) / len(sums)
    assert float(authors_importance(weights)) == pytest.approx(variance / (mean**2 + 1e-10), rel=1e-12)


def loop_of(**options: Any) -> TrainingLoop:
    config = TrainConfig(data=Path("unused"), batch_size=4, steps=5, lr=0.1, **options)
    backbone = tiny_dit()
    trainee = prepare(config, backbone=backbone, codec=PixelCodec(3), patch_config=PatchConfig())
    return TrainingLoop(trainee, config)


def batch(step: int) -> Batch:
    source = torch.Generator().manual_seed(step)
    images = torch.rand(4, 3, 8, 8, generator=source) * 2 - 1
    return Batch(step=step, values=images, labels=torch.arange(4), indices=torch.arange(4), bad=[])


def learnt_after(loop: TrainingLoop, steps: int) -> dict[str, torch.Tensor]:
    for step in range(loop.step, steps):
        loop.advance(loop.prepare(batch(step)))
    return {name: parameter.detach().clone() for name, parameter in loop.trainee.learnt.items()}


def test_noisy_logits_by_hand() -> None:
    backbone = tiny_dit().double()
    patch = filled_patch(backbone).double()
    noise = LoadNoise(gate_width=16, num_prompts=16).double()
    torch.nn.init.normal_(noise.weight)
    rows = torch.randn(3, 1, 16, dtype=torch.float64)
    arguments = [a.double() if a is not None and a.is_floating_point() else a for a in call_of(backbone)]
    vectors = backbone.gate_vector(arguments[1])
    expected = patch(vectors).logits + (torch.log1p(torch.exp(vectors @ noise.weight)) + 0.01)[:, None] * rows
    seen: list[torch.Tensor] = []
    patched = attach(backbone, patch)
    with patched.noisy(lambda vector: noise(vector) * rows):
        mixture = next(iter(backbone.blocks[1]._forward_pre_hooks.values()))
        patched(*arguments)
        seen.append(mixture.weights)  # type: ignore[attr-defined]
    torch.testing.assert_close(seen[0][..., 0], expected[:, 1].softmax(-1), rtol=1e-9, atol=1e-12)
    quiet = patched(*arguments)
    patched.detach()
    torch.testing.assert_close(attach(backbone, patch)(*arguments), quiet)


def test_noise_depends_on_step_and_place_only() -> None:
    noisy, quiet = learnt_after(loop_of(gate_noise=True), 3), learnt_after(loop_of(), 3)
    assert not torch.equal(noisy["prompts.0"], quiet["prompts.0"])
    stopped = loop_of(gate_noise=True)
    learnt_after(stopped, 2)
    resumed = loop_of(gate_noise=True)
    resumed.restore(stopped.state())
    assert all(torch.equal(value, noisy[name]) for name, value in learnt_after(resumed, 3).items())
    parts = learnt_after(loop_of(gate_noise=True, micro_batch_size=2), 3)
    for name, value in parts.items():
        torch.testing.assert_close(value, noisy[name], rtol=1e-3, atol=1e-4)


def test_the_noise_scale_learns_through_the_mixture_only() -> None:
    loop = loop_of(gate_noise=True, balance_load=0.0)
    assert loop.trainee.load_noise is not None
    learnt_after(loop, 2)  # prompts are zero in the first step
    assert bool(loop.trainee.load_noise.weight.any())


def test_authors_losses_in_a_step() -> None:
    loop = loop_of(balance_losses="authors")
    terms = loop.advance(loop.prepare(batch(0)))
    assert float(terms["load"]) == 0
    assert float(terms["importance"]) > 0
    assert loop_of(balance_losses="authors").trainee.load_noise is None
    paper = loop_of()
    assert float(paper.advance(paper.prepare(batch(0)))["load"]) > 0


@pytest.mark.parametrize("gate", ["constant", "none"])
def test_noise_needs_a_gate(gate: str) -> None:
    config = TrainConfig(data=Path("unused"), gate_noise=True)
    with pytest.raises(ConfigError, match=f"--gate {gate} has none"):
        prepare(config, backbone=tiny_dit(), codec=PixelCodec(3), patch_config=PatchConfig(gate=gate))  # type: ignore[arg-type]
