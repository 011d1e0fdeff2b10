"""The balance losses against loops: the k-th largest of the others found by sorting them, Phi through math.erf."""

import math

import pytest
import torch

from dmp_cli.config import PatchConfig
from dmp_cli.patching.balance import (
    Balance,
    LoadNoise,
    cv_squared,
    load_top_k,
    measure_balance,
    measure_use,
    smooth_load,
)
from dmp_cli.patching.gates import Gating
from dmp_cli.patching.prompts import Patch

from .gatings import measured

BATCH, BLOCKS, PROMPTS, WIDTH = 3, 2, 6, 4


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_gating(*, tokens=PROMPTS, **variant):
    """A patch and its gating. The values of the prompts do not matter here."""
    patch = Patch(PatchConfig(**variant), hidden_shapes=[(tokens, WIDTH)] * BLOCKS, gate_width=WIDTH)
    return patch(draws(BATCH, WIDTH).float()), patch


def importance_loss(weights):
    return measured(Gating(weights, weights, weights))[0].importance


def load_loss(logits, *, std, noise, top_k):
    return cv_squared(smooth_load(logits, std=std, noise=noise, top_k=top_k)).mean()


def slow_cv_squared(values):
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values) / (mean**2 + 1e-10)


def slow_load(logits, std, noise, top_k):
    """Mean over blocks of CV^2 of sum over the batch of P(prompt i is among the top k under fresh noise)."""
    blocks = []
    for block in range(logits.shape[1]):
        counts = [0.0] * logits.shape[2]
        for b in range(logits.shape[0]):
            clean, spread, drawn = logits[b, block].tolist(), std[b, 0].tolist(), noise[b, 0].tolist()
            noisy = [c + s * n for c, s, n in zip(clean, spread, drawn, strict=True)]
            for i in range(len(noisy)):
                others = sorted(noisy[:i] + noisy[i + 1 :], reverse=True)
                z = (clean[i] - others[top_k - 1]) / spread[i]
                counts[i] += 0.5 * (1 + math.erf(z / math.sqrt(2)))
        blocks.append(slow_cv_squared(counts))
    return sum(blocks) / len(blocks)


def test_cv_squared_by_hand():
    # mean 2, population variance 1; mean 1, variance 2; all equal; all zero: 0 / 1e-10
    values = torch.tensor([[1.0, 3, 1, 3], [3, 1, 0, 0], [2, 2, 2, 2], [0, 0, 0, 0]], dtype=torch.float64)
    assert cv_squared(values).tolist() == pytest.approx([1 / 4, 3 / 2, 0, 0], abs=1e-9)
    # the 1e-10 that keeps it finite: variance 1e-10, mean 0
    assert cv_squared(torch.tensor([1e-5, -1e-5], dtype=torch.float64)).item() == pytest.approx(1)


def test_importance_is_the_formula():
    weights = draws(BATCH, BLOCKS, PROMPTS).softmax(-1)
    per_block = []
    for block in range(BLOCKS):
        sums = [sum(weights[b, block, n].item() for b in range(BATCH)) for n in range(PROMPTS)]
        per_block.append(slow_cv_squared(sums))
    assert per_block[0] != pytest.approx(per_block[1])
    assert importance_loss(weights).item() == pytest.approx(sum(per_block) / BLOCKS, rel=1e-12)


def test_importance_lets_timesteps_specialise():
    # every sample has a prompt to itself, every prompt the same share of the batch: balanced
    assert importance_loss(torch.eye(4)[:, None]).item() == pytest.approx(0)
    # one prompt takes all: mean 1, variance 3
    assert importance_loss(torch.eye(4)[:1].expand(4, 4)[:, None]).item() == pytest.approx(3)


@pytest.mark.parametrize("top_k", [1, 2, 4, 5])
def test_load_is_the_formula(top_k):
    logits, noise = draws(BATCH, BLOCKS, PROMPTS), draws(BATCH, 1, PROMPTS, seed=1)
    std = draws(BATCH, 1, PROMPTS, seed=2).exp()
    expected = slow_load(logits, std, noise, top_k)
    assert load_loss(logits, std=std, noise=noise, top_k=top_k).item() == pytest.approx(expected, rel=1e-10)


def test_load_with_ties():
    # by hand, sigma 1, k = 2, logits 2 1 1 0: excluding itself the second largest is 1 for each of them
    logits = torch.tensor([2.0, 1, 1, 0], dtype=torch.float64).view(1, 1, 4)
    ones, nothing = torch.ones(1, 1, 4, dtype=torch.float64), torch.zeros(1, 1, 4, dtype=torch.float64)
    phi = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    expected = slow_cv_squared([phi, 0.5, 0.5, 1 - phi])
    assert load_loss(logits, std=ones, noise=nothing, top_k=2).item() == pytest.approx(expected, rel=1e-12)
    # all equal: each is in with probability one half
    assert load_loss(0 * logits, std=ones, noise=nothing, top_k=2).item() == pytest.approx(0)
    # many ties at once
    rough = draws(BATCH, BLOCKS, PROMPTS).round()
    std, none = torch.ones(BATCH, 1, PROMPTS, dtype=torch.float64), torch.zeros(BATCH, 1, PROMPTS).double()
    for top_k in range(1, PROMPTS):
        expected = slow_load(rough, std, none, top_k)
        assert load_loss(rough, std=std, noise=none, top_k=top_k).item() == pytest.approx(expected, rel=1e-10)


def test_gradients():
    weights = draws(BATCH, BLOCKS, PROMPTS).softmax(-1).requires_grad_(True)
    assert torch.autograd.gradcheck(importance_loss, (weights,))
    logits, noise = draws(BATCH, BLOCKS, PROMPTS).requires_grad_(True), draws(BATCH, 1, PROMPTS, seed=1)
    std = draws(BATCH, 1, PROMPTS, seed=2).exp().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda a, s: load_loss(a, std=s, noise=noise, top_k=4), (logits, std))


@pytest.mark.parametrize(
    ("num_prompts", "top_k"), [(256, 192), (1024, 768), (16, 12), (5, 3), (4, 3), (3, 2), (2, 1), (1, 0)]
)
def test_top_k(num_prompts, top_k):
    assert load_top_k(num_prompts) == top_k


def test_noise_scale_is_the_formula():
    noise = LoadNoise(gate_width=WIDTH, num_prompts=PROMPTS)
    vector = draws(BATCH, WIDTH).float()
    assert noise(vector).shape == (BATCH, 1, PROMPTS)
    # it starts at softplus(0) + 0.01 for every prompt
    assert noise(vector).flatten().tolist() == pytest.approx([math.log(2) + 0.01] * BATCH * PROMPTS)
    noise.weight.data = draws(WIDTH, PROMPTS, seed=3).float()
    for b in range(BATCH):
        for n in range(PROMPTS):
            z = sum(vector[b, d].item() * noise.weight[d, n].item() for d in range(WIDTH))
            assert noise(vector)[b, 0, n].item() == pytest.approx(math.log1p(math.exp(z)) + 0.01, rel=1e-5)


@pytest.mark.parametrize("scope", ["distinct", "uniform"])
def test_measured_on_a_gate(scope):
    gating, _ = make_gating(scope=scope)
    load_noise, noise = LoadNoise(gate_width=WIDTH, num_prompts=PROMPTS), draws(BATCH, PROMPTS).float()
    result, _ = measured(gating, load_noise=load_noise, noise=noise)
    std = torch.full((BATCH, 1, PROMPTS), math.log(2) + 0.01)
    expected = slow_load(gating.logits, std, noise[:, None], 4)
    assert result.load.item() == pytest.approx(expected, rel=1e-4)
    sums = gating.weights.double().sum(0)
    expected = sum(slow_cv_squared(sums[block].tolist()) for block in range(BLOCKS)) / BLOCKS
    assert result.importance.item() == pytest.approx(expected, rel=1e-4)


def test_gradients_reach_the_gate_and_its_noise_and_nothing_else():
    gating, patch = make_gating()
    load_noise, noise = LoadNoise(gate_width=WIDTH, num_prompts=PROMPTS), draws(BATCH, PROMPTS).float()
    result, _ = measured(gating, load_noise=load_noise, noise=noise)
    for loss, reached in ((result.importance, False), (result.load, True)):
        gate = torch.autograd.grad(loss, list(patch.gate.parameters()), retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gate)
        (own,) = torch.autograd.grad(loss, [load_noise.weight], retain_graph=True, allow_unused=True)
        assert (own is not None and own.abs().sum() > 0) == reached
        prompts = torch.autograd.grad(loss, list(patch.prompts), retain_graph=True, allow_unused=True)
        assert all(gradient is None for gradient in prompts)


def test_a_large_batch_is_measured_in_pieces(monkeypatch):
    """Losses, use and gradients are those of the batch as a whole, and no piece is read at the same time as another."""
    load_noise, noise = LoadNoise(gate_width=WIDTH, num_prompts=PROMPTS), draws(7, PROMPTS).float()
    patch = Patch(PatchConfig(), hidden_shapes=[(PROMPTS, WIDTH)] * BLOCKS, gate_width=WIDTH)
    vector, read = draws(7, WIDTH).float(), []
    trained = [*patch.gate.parameters(), load_noise.weight]

    def gating(rows):
        read.append(rows)
        return patch(vector[rows])

    def found():
        read.clear()
        how = {"count": 7, "each": BLOCKS * PROMPTS, "load_noise": load_noise, "noise": noise}
        balance, use = measure_balance(gating, **how)
        return [*balance, *use, *torch.autograd.grad(balance.importance + balance.load, trained)]

    whole = found()
    assert read == [slice(0, 7)]
    monkeypatch.setattr("dmp_cli.patching.balance.AT_ONCE", 3 * BLOCKS * PROMPTS + 1)
    pieces = found()
    in_order = [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert read == [*in_order, *reversed(in_order)]  # again for the gradients
    torch.testing.assert_close(pieces, whole)
    assert min(float(one.detach().abs().sum()) for one in pieces[:4]) > 1e-3


def test_without_noise_there_is_no_load():
    gating, _ = make_gating()
    result, _ = measured(gating)
    assert result.importance > 0
    assert result.load == 0


@pytest.mark.parametrize("tokens", [1, 2])
def test_very_few_prompts(tokens):
    gating, _ = make_gating(tokens=tokens)
    load_noise, noise = LoadNoise(gate_width=WIDTH, num_prompts=tokens), draws(BATCH, tokens).float()
    result, _ = measured(gating, load_noise=load_noise, noise=noise)
    if tokens == 1:  # the only prompt always weighs 1
        assert result == Balance(torch.zeros(()), torch.zeros(()))
    else:
        std = torch.full((BATCH, 1, 2), math.log(2) + 0.01)
        assert result.load.item() == pytest.approx(slow_load(gating.logits, std, noise[:, None], 1), rel=1e-4)


def test_entropy_effective_and_dead_prompts_by_hand():
    """Two samples, two blocks, four prompts: uniform, one-hot, two of four, and weights that do not sum to one."""
    weights = torch.tensor(
        [[[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]], [[0.5, 0.5, 0.0, 0.0], [4.0, 4.0, 0.0, 0.0]]],
        dtype=torch.float64,
    )
    use = measure_use(weights)
    assert use.entropy.item() == pytest.approx((math.log(4) + 0 + math.log(2) + math.log(2)) / 4)
    assert use.effective_prompts.item() == pytest.approx((4 + 1 + 2 + 2) / 4)
    assert use.dead_prompts.item() == pytest.approx((0 + 2) / 2)
