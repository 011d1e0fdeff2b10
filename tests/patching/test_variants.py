"""Hard selection, gate scale, random init and the conditioning as gate input, against formulas written out."""

from __future__ import annotations

import math

import pytest
import torch

from dmp_cli.backbones import load_backbone
from dmp_cli.config import PatchConfig
from dmp_cli.errors import ConfigError, PatchError
from dmp_cli.patching.attachment import attach, create_patch
from dmp_cli.patching.prompts import Patch
from tests.builders import PIXELS, call_of, filled_patch, tiny_dit

BLOCKS, TOKENS, WIDTH = 3, 6, 4


def make_patch(**variant: object) -> Patch:
    patch = Patch(PatchConfig(**variant), hidden_shapes=[(TOKENS, WIDTH)] * BLOCKS, gate_width=WIDTH).double()
    source = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in patch.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    return patch


def vectors() -> torch.Tensor:
    return torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("top_k", [1, 4, 6, None])
def test_hard_selection_is_exactly_one_for_exactly_k(top_k: int | None) -> None:
    soft, hard = make_patch(), make_patch(selection="hard", top_k=top_k)
    count = top_k or 4  # 75 % of 6, rounded down
    probabilities, weights = soft(vectors()).weights, hard(vectors()).weights
    for sample in range(5):
        for block in range(BLOCKS):
            row = probabilities[sample, block].tolist()
            best = sorted(range(TOKENS), key=lambda n: -row[n])[:count]
            assert weights[sample, block].tolist() == [1.0 if n in best else 0.0 for n in range(TOKENS)]


def test_hard_selection_passes_the_gradient_of_the_soft_weights() -> None:
    soft, hard = make_patch(), make_patch(selection="hard", top_k=2)
    factor = torch.randn(5, BLOCKS, TOKENS, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for patch in (soft, hard):
        (patch(vectors()).weights * factor).sum().backward()
    assert soft.gate is not None
    assert hard.gate is not None
    assert soft.gate.weight.grad is not None
    assert soft.gate.weight.grad.abs().max() > 0
    torch.testing.assert_close(hard.gate.weight.grad, soft.gate.weight.grad, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("gate", "weight"), [("linear", None), ("constant", 6 * (1 / 6))])
def test_gate_scale_is_a_factor(gate: str, weight: float | None) -> None:
    plain, scaled = make_patch(gate=gate)(vectors()).weights, make_patch(gate=gate, gate_scale=6.0)(vectors()).weights
    torch.testing.assert_close(scaled, 6 * plain, rtol=1e-7, atol=0)  # a constant gate is kept in float32
    assert weight is None or scaled.unique().tolist() == [pytest.approx(weight)]


def test_random_prompts_are_xavier_uniform_by_their_seed() -> None:
    shapes = {"hidden_shapes": [(60, 40)] * 2, "gate_width": 40}
    one, again, other = (Patch(PatchConfig(init="random"), **shapes, seed=seed) for seed in (0, 0, 1))
    bound = math.sqrt(6 / 100)
    for prompts in one.prompts:
        assert prompts.abs().max() <= bound
        assert prompts.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert torch.equal(one.prompts[0], again.prompts[0])
    assert not torch.equal(one.prompts[0], one.prompts[1])
    assert not torch.equal(one.prompts[0], other.prompts[0])


def test_the_conditioning_is_timestep_plus_class() -> None:
    """x_{i+1} = Block_i(softmax(W [c; i] + b) p_i + x_i) with c = t + y, by explicit calls of the DiT's parts."""
    backbone = tiny_dit()
    patch = filled_patch(backbone, gate_input="conditioning")
    x, timesteps, labels = call_of(backbone)
    assert labels is not None
    with torch.no_grad():
        c = backbone.t_embedder(timesteps) + backbone.y_embedder.embedding_table.weight[labels]
        hidden = backbone.x_embedder(x) + backbone.pos_embed
        for index, block in enumerate(backbone.blocks):
            depth = torch.full((len(x), 1), float(index))
            weights = (torch.cat([c, depth], dim=1) @ patch.gate.weight.T + patch.gate.bias).softmax(-1)
            hidden = block(hidden + weights[:, :, None] * patch.prompts[index], c)
        expected = backbone._unpatchify(backbone.final_layer(hidden, c))
        patched = attach(backbone, patch)
        torch.testing.assert_close(patched(x, timesteps, labels), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(patched.gating(timesteps, labels).vector, c)
        null = torch.full_like(labels, 4)
        assert torch.equal(patched.gating(timesteps).vector, patched.gating(timesteps, null).vector)


def test_a_fresh_patch_that_reads_the_class_changes_nothing() -> None:
    backbone = tiny_dit()
    call = call_of(backbone)
    with torch.no_grad():
        bare = backbone(*call)
        patch = create_patch(backbone, PatchConfig(gate_input="conditioning"), codec=PIXELS, image_size=8)
        patched = attach(backbone, patch)
        assert torch.equal(patched(*call), bare)
        with pytest.raises(PatchError, match="attached already"):
            attach(backbone, filled_patch(tiny_dit()))
        assert torch.equal(patched.detach()(*call), bare)


def test_without_classes_there_is_no_conditioning() -> None:
    backbone = tiny_dit(num_classes=0, null_row=False)
    with pytest.raises(ConfigError, match="takes no class"):
        create_patch(backbone, PatchConfig(gate_input="conditioning"), codec=PIXELS, image_size=8)
    with pytest.raises(PatchError, match="reads the conditioning"):
        attach(backbone, filled_patch(tiny_dit(), gate_input="conditioning"))


def test_the_state_dict_keeps_the_public_names() -> None:
    assert not [name for name in load_backbone("digits").state_dict() if "conditioning" in name]


# --- prepended prompts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [{}, {"depth": 2}, {"gate": "none"}, {"selection": "hard"}, {"num_prompts": 16}])
def test_prepended_prompts_are_the_formula(variant: dict[str, object]) -> None:
    """The forward with prepended prompts, written out: new ones before each block, none after the last."""
    backbone = tiny_dit()
    patch = filled_patch(backbone, **{"position": "prepend", "num_prompts": 5, **variant})
    x, timesteps, labels = call_of(backbone)
    with torch.no_grad():
        t = backbone.t_embedder(timesteps)
        c = t + backbone.y_embedder.embedding_table.weight[labels]
        weights = patch(t).weights.expand(len(x), -1, -1)
        hidden = backbone.x_embedder(x) + backbone.pos_embed
        for index, block in enumerate(backbone.blocks):
            if index < len(patch.prompts):
                tokens = weights[:, index, :, None] * patch.prompts[index]
                hidden = block(torch.cat([tokens, hidden], dim=1), c)[:, patch.num_prompts :]
            else:
                hidden = block(hidden, c)
        expected = backbone._unpatchify(backbone.final_layer(hidden, c))
        patched = attach(backbone, patch)
        torch.testing.assert_close(patched(x, timesteps, labels), expected, rtol=1e-5, atol=1e-5)
        bare = tiny_dit()(x, timesteps, labels)
        with patched.disabled():
            assert torch.equal(patched(x, timesteps, labels), bare)
        assert torch.equal(patched.detach()(x, timesteps, labels), bare)


def test_prepended_prompts_act_through_attention_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """If attention to the prompts is masked, the image tokens are the same as without prompts."""
    backbone = tiny_dit()
    call = call_of(backbone)
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        seen = torch.arange(key.shape[2]) >= key.shape[2] - 16  # the 16 image tokens
        return sdpa(query, key, value, attn_mask=seen.expand(query.shape[2], -1))

    with torch.no_grad():
        bare = backbone(*call)
        patched = attach(backbone, filled_patch(backbone, position="prepend", num_prompts=5))
        assert not torch.allclose(patched(*call), bare, atol=1e-3)
        monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", masked)
        torch.testing.assert_close(patched(*call), bare, rtol=1e-4, atol=1e-5)


def test_prepended_prompts_learn_and_count() -> None:
    backbone = tiny_dit()
    patch = create_patch(backbone, PatchConfig(position="prepend"), codec=PIXELS, image_size=8)
    assert [tuple(p.shape) for p in patch.prompts] == [(50, 16)] * 3
    assert patch.num_parameters() == 3 * 50 * 16 + 17 * 50 + 50
    attach(backbone, patch)(*call_of(backbone)).square().mean().backward()
    assert all(prompt.grad is not None and prompt.grad.abs().max() > 0 for prompt in patch.prompts)
    with pytest.raises(PatchError, match="prompts of shape"):
        attach(tiny_dit(hidden_size=32), Patch(patch.config, hidden_shapes=[(50, 16)] * 3, gate_width=32))
