"""The paper's method against formulas written out with loops in float64: gates, mixture, counts, precision."""

import math

import pytest
import torch
from torch.func import functional_call

from dmp_cli.config import PatchConfig
from dmp_cli.patching.prompts import Patch, add_mixture

BLOCKS, TOKENS, WIDTH = 3, 5, 4


def make_patch(*, num_blocks=BLOCKS, seed=0, **variant):
    return Patch(PatchConfig(**variant), hidden_shapes=[(TOKENS, WIDTH)] * num_blocks, gate_width=WIDTH, seed=seed)


def randomised(patch, *, seed=1):
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in patch.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source, dtype=parameter.dtype))
    return patch


def vectors(count=2, *, dtype=torch.float64):
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(7), dtype=dtype)


def slow_logits(patch, vector, index):
    """W [t; i] + b, one multiplication at a time."""
    inputs = vector.tolist() + ([float(index)] if patch.config.scope == "distinct" else [])
    rows, bias = patch.gate.weight.tolist(), patch.gate.bias.tolist()
    return [sum(w * v for w, v in zip(row, inputs, strict=True)) + b for row, b in zip(rows, bias, strict=True)]


def slow_softmax(logits):
    total = sum(math.exp(value) for value in logits)
    return [math.exp(value) / total for value in logits]


@pytest.mark.parametrize("scope", ["distinct", "uniform"])
def test_linear_gate_is_the_formula(scope):
    patch = randomised(make_patch(scope=scope).double())
    vector = vectors()
    gating = patch(vector)
    assert gating.weights.shape == gating.logits.shape == (2, BLOCKS, TOKENS)
    for sample in range(2):
        for block in range(BLOCKS):
            logits = slow_logits(patch, vector[sample], block)
            assert gating.logits[sample, block].tolist() == pytest.approx(logits, rel=1e-12)
            assert gating.weights[sample, block].tolist() == pytest.approx(slow_softmax(logits), rel=1e-12)
    assert torch.equal(gating.vector, vector)


def test_float32_gate_is_the_formula():
    patch = randomised(make_patch())
    vector = vectors(dtype=torch.float32)
    weights = patch(vector).weights
    assert weights.dtype == torch.float32
    for block in range(BLOCKS):
        assert weights[1, block].tolist() == pytest.approx(slow_softmax(slow_logits(patch, vector[1], block)), rel=1e-5)


def test_scope_says_whether_blocks_differ():
    uniform = randomised(make_patch(scope="uniform"))(vectors(dtype=torch.float32)).weights
    distinct = randomised(make_patch(scope="distinct"))(vectors(dtype=torch.float32)).weights
    for block in range(1, BLOCKS):
        assert torch.equal(uniform[:, block], uniform[:, 0])
        assert (distinct[:, block] - distinct[:, 0]).abs().max() > 0.01


@pytest.mark.parametrize(("gate", "weight"), [("constant", 1 / TOKENS), ("none", 1.0)])
def test_weights_without_a_gate_are_constant(gate, weight):
    gating = make_patch(gate=gate)(vectors(dtype=torch.float32))
    assert gating.logits is None
    assert gating.weights.shape == (1, BLOCKS, TOKENS)
    assert torch.equal(gating.weights, torch.full((1, BLOCKS, TOKENS), weight))


def test_fresh_prompts_are_zero_and_the_gate_comes_from_its_seed():
    patch, same, other = make_patch(seed=3), make_patch(seed=3), make_patch(seed=4)
    assert all(not prompts.any() for prompts in patch.prompts)
    assert torch.equal(patch.gate.weight, same.gate.weight)
    assert torch.equal(patch.gate.bias, same.gate.bias)
    assert not torch.equal(patch.gate.weight, other.gate.weight)
    # as nn.Linear starts: uniform within 1 / sqrt(inputs), both signs
    bound = 1 / math.sqrt(WIDTH + 1)
    values = torch.cat([patch.gate.weight.flatten(), patch.gate.bias])
    assert -bound <= values.min() < -bound / 2
    assert bound / 2 < values.max() <= bound


@pytest.mark.parametrize("num_blocks", [1, 3])
@pytest.mark.parametrize(
    ("variant", "gate_count"),
    [
        ({}, (WIDTH + 1) * TOKENS + TOKENS),
        ({"scope": "uniform"}, WIDTH * TOKENS + TOKENS),
        ({"gate": "constant"}, 0),
        ({"gate": "none"}, 0),
    ],
)
def test_parameter_count(num_blocks, variant, gate_count):
    patch = make_patch(num_blocks=num_blocks, **variant)
    assert patch.num_parameters() == num_blocks * TOKENS * WIDTH + gate_count
    # what a file keeps is what is counted: buffers stay out
    assert sum(tensor.numel() for tensor in patch.state_dict().values()) == patch.num_parameters()


@pytest.mark.parametrize("gate", ["linear", "constant", "none"])
def test_a_patch_of_no_block(gate):
    patch = make_patch(num_blocks=0, gate=gate)
    assert (patch.num_parameters(), patch.num_prompts) == (0, 0)
    assert patch(vectors(dtype=torch.float32)).weights.shape[1:] == (0, 0)


def test_uniform_scope_needs_a_gate():
    for gate in ("constant", "none"):
        with pytest.raises(ValueError, match="scope uniform"):
            PatchConfig(gate=gate, scope="uniform")


def test_mixture_is_the_formula():
    source = torch.Generator().manual_seed(0)
    hidden, prompts = (torch.randn(s, generator=source) for s in ((2, TOKENS, WIDTH), (TOKENS, WIDTH)))
    for batch in (1, 2):
        weights = torch.rand(batch, TOKENS, 1, generator=source)
        result = add_mixture(hidden, weights=weights, prompts=prompts, strength=0.7)
        for b in range(2):
            for n in range(TOKENS):
                for d in range(WIDTH):
                    added = 0.7 * weights[b % batch, n, 0].item() * prompts[n, d].item()
                    assert result[b, n, d].item() == pytest.approx(hidden[b, n, d].item() + added, rel=1e-5, abs=1e-6)


def test_zero_prompts_or_zero_strength_add_nothing():
    hidden = torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
    weights, prompts = torch.rand(2, TOKENS, 1), torch.ones(TOKENS, WIDTH)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        state = hidden.to(dtype)
        assert torch.equal(add_mixture(state, weights=weights, prompts=0 * prompts), state)
        assert torch.equal(add_mixture(state, weights=weights, prompts=prompts, strength=0), state)
        assert not torch.equal(add_mixture(state, weights=weights, prompts=prompts), state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_hidden_states_are_added_in_float32_and_rounded_once(dtype):
    source = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, TOKENS, WIDTH, generator=source).to(dtype)
    weights, prompts = torch.rand(4, TOKENS, 1, generator=source), torch.randn(TOKENS, WIDTH, generator=source)
    result = add_mixture(hidden, weights=weights, prompts=prompts)
    assert result.dtype == dtype
    assert torch.equal(result, (hidden.double() + weights.double() * prompts.double()).to(dtype))
    rounded_twice = hidden + weights.to(dtype) * prompts.to(dtype)
    assert not torch.equal(rounded_twice, result), "the case is too easy to tell the two apart"


@pytest.mark.parametrize("scope", ["distinct", "uniform"])
def test_gradients_of_gate_and_mixture(scope):
    patch = randomised(make_patch(scope=scope).double())
    names = [name for name, _ in patch.named_parameters()]
    hidden = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    vector = vectors().requires_grad_(True)

    def all_blocks(hidden, vector, *values):
        gating = functional_call(patch, dict(zip(names, values, strict=True)), (vector,))
        for block in range(BLOCKS):
            weights, prompts = gating.weights[:, block, :, None], values[names.index(f"prompts.{block}")]
            hidden = add_mixture(hidden, weights=weights, prompts=prompts, strength=0.7)
        return hidden

    values = [parameter.detach().clone().requires_grad_(True) for parameter in patch.parameters()]
    assert torch.autograd.gradcheck(all_blocks, (hidden, vector, *values))


def test_gate_stays_float32_inside_autocast():
    patch = randomised(make_patch())
    vector = vectors(8, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = patch(vector)
        unguarded = torch.nn.functional.linear(vector, patch.gate.weight[:, :-1])
    assert unguarded.dtype == torch.bfloat16, "autocast is not on"
    outside = patch(vector)
    assert inside.weights.dtype == inside.logits.dtype == inside.vector.dtype == torch.float32
    assert torch.equal(inside.weights, outside.weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_vector_is_read_in_float32(dtype):
    patch = randomised(make_patch())
    vector = vectors(dtype=torch.float32).to(dtype)
    gating = patch(vector)
    assert gating.vector.dtype == gating.weights.dtype == torch.float32
    assert gating.weights[0, 2].tolist() == pytest.approx(slow_softmax(slow_logits(patch, vector[0], 2)), rel=1e-5)


def test_weights_sum_to_one_far_from_zero():
    patch = randomised(make_patch())
    weights = patch(1000 * vectors(dtype=torch.float32)).weights
    assert weights.isfinite().all()
    assert weights.sum(-1).flatten().tolist() == pytest.approx([1.0] * 2 * BLOCKS, rel=1e-6)
