"""Schedule and loss against formulas in float64: Bayes' rule for the posterior, Gaussian KL, bins one by one."""

import math

import pytest
import torch

from dmp_cli.config import ScheduleConfig
from dmp_cli.diffusion.loss import denoising_loss, discretised_log_likelihood, variance_bound
from dmp_cli.diffusion.schedule import Schedule, noise_betas

LINEAR, COSINE = ScheduleConfig(), ScheduleConfig(kind="cosine")
TIMESTEPS = [0, 1, 2, 10, 500, 998, 999]
SHAPE = (len(TIMESTEPS), 2, 2, 2)


def slow_betas(kind, count=1000):
    if kind == "linear":
        return [1e-4 + (0.02 - 1e-4) * t / (count - 1) for t in range(count)]

    def kept(place):
        return math.cos((place + 0.008) / 1.008 * math.pi / 2) ** 2

    return [min(1 - kept((t + 1) / count) / kept(t / count), 0.999) for t in range(count)]


def slow_kept(betas):
    kept, product = [], 1.0
    for beta in betas:
        product *= 1 - beta
        kept.append(product)
    return kept


def slow_posterior(x0, xt, t, betas):
    """Mean and variance of q(x_{t-1} | x_t, x_0) by Bayes: the product of q(x_t | x_{t-1}) and q(x_{t-1} | x_0)."""
    before = slow_kept(betas)[t - 1]
    precision = (1 - betas[t]) / betas[t] + 1 / (1 - before)
    mean = (math.sqrt(1 - betas[t]) / betas[t] * xt + math.sqrt(before) / (1 - before) * x0) / precision
    return mean, 1 / precision


def slow_bound(x0, xt, t, epsilon, v, betas):
    """Bits of one number: KL of two Gaussians, or, at t = 0, minus log of the mass of its bin."""
    kept = slow_kept(betas)[t]
    guess = (xt - math.sqrt(1 - kept) * epsilon) / math.sqrt(kept)
    _, first_variance = slow_posterior(0, 0, max(t, 1), betas)  # t = 0 takes that of t = 1
    fraction = (v + 1) / 2
    model_variance = math.exp(fraction * math.log(betas[t]) + (1 - fraction) * math.log(first_variance))
    if t == 0:  # x_{t-1} is x_0 itself: the posterior's mean is the guess
        return -slow_log_mass(x0, guess, math.sqrt(model_variance)) / math.log(2)
    mean, variance = slow_posterior(x0, xt, t, betas)
    model_mean, _ = slow_posterior(guess, xt, t, betas)
    kl = math.log(model_variance / variance) / 2 + (variance + (mean - model_mean) ** 2) / (2 * model_variance) - 0.5
    return kl / math.log(2)


def slow_log_mass(x, mean, std):
    """log of a Gaussian's mass between x - 1/255 and x + 1/255; the bins at -1 and 1 reach to infinity."""

    def cdf(edge):
        z = (edge - mean) / std
        return 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))

    low = 0.0 if x < -0.999 else cdf(x - 1 / 255)
    high = 1.0 if x > 0.999 else cdf(x + 1 / 255)
    return math.log(max(high - low, 1e-12))


@pytest.fixture
def case():
    """Clean and noisy latents, noise, and a prediction that is near the truth; each timestep once."""
    source = torch.Generator().manual_seed(0)
    x0 = (torch.rand(SHAPE, generator=source, dtype=torch.float64) * 255).round() / 127.5 - 1
    x0[0].view(-1)[:3] = torch.tensor([-1.0, 1.0, 0.2])
    noise = torch.randn(SHAPE, generator=source, dtype=torch.float64)
    epsilon = noise + 0.3 * torch.randn(SHAPE, generator=source, dtype=torch.float64)
    variance = 2 * torch.rand(SHAPE, generator=source, dtype=torch.float64) - 1
    return x0, noise, epsilon, variance


def noised(x0, noise, kind="linear", timesteps=TIMESTEPS):
    kept = [slow_kept(slow_betas(kind))[t] for t in timesteps]
    return torch.stack([math.sqrt(k) * x + math.sqrt(1 - k) * n for k, x, n in zip(kept, x0, noise, strict=True)])


def test_linear_betas_by_hand():
    betas = noise_betas(LINEAR)
    assert betas.dtype == torch.float64
    assert betas.shape == (1000,)
    assert betas[[0, 500, 999]].tolist() == pytest.approx([1e-4, 1e-4 + 0.0199 * 500 / 999, 0.02], rel=1e-12)
    # the well-known end of the linear schedule: alpha-bar_T = 4.0358e-5
    assert (1 - betas).prod().item() == pytest.approx(4.0358e-5, rel=1e-4)
    two = noise_betas(ScheduleConfig(num_timesteps=2, beta_start=0.1, beta_end=0.3))
    assert two.tolist() == pytest.approx([0.1, 0.3])


def test_cosine_betas_by_hand():
    betas = noise_betas(COSINE)
    assert betas.tolist() == pytest.approx(slow_betas("cosine"), rel=1e-9)
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert betas[0].item() == pytest.approx(1 - math.cos(0.009 / 1.008 * math.pi / 2) ** 2 / start, rel=1e-9)
    assert betas[999].item() == 0.999  # clipped: the formula gives 1
    # halfway the signal is about half: cos^2(pi / 4 plus a little)
    assert (1 - betas[:500]).prod().item() == pytest.approx(0.4938, abs=1e-4)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_noising_is_the_formula(case, kind):
    x0, noise, _, _ = case
    schedule = Schedule(ScheduleConfig(kind=kind))
    xt = schedule.add_noise(x0.float(), noise=noise.float(), timesteps=torch.tensor(TIMESTEPS))
    assert xt.dtype == torch.float32
    assert torch.allclose(xt.double(), noised(x0, noise, kind), atol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bound_is_the_formula(case, kind, dtype):
    x0, noise, epsilon, variance = case
    xt, betas = noised(x0, noise, kind), slow_betas(kind)
    schedule, timesteps = Schedule(ScheduleConfig(kind=kind)), torch.tensor(TIMESTEPS)
    at = {"xt": xt.to(dtype), "timesteps": timesteps}
    clean = schedule.clean(epsilon.to(dtype), **at)
    bound = variance_bound(clean, variance.to(dtype), x0=x0.to(dtype), **at, schedule=schedule)
    for k, t in enumerate(TIMESTEPS):
        numbers = zip(*(tensor[k].flatten().tolist() for tensor in (x0, xt, epsilon, variance)), strict=True)
        bits = [slow_bound(x, noisy, t, e, v, betas) for x, noisy, e, v in numbers]
        assert bound[k].item() == pytest.approx(sum(bits) / len(bits), rel=1e-4, abs=1e-6), f"timestep {t}"


def test_a_perfect_prediction_costs_no_bits():
    """With the true noise and the true posterior variance (v = -1) the KL is 0 at every t > 0."""
    x0, noise = torch.full((3, 1, 1, 1), 0.3), torch.full((3, 1, 1, 1), -0.8)
    timesteps, schedule = torch.tensor([1, 400, 999]), Schedule(LINEAR)
    xt = schedule.add_noise(x0, noise=noise, timesteps=timesteps)
    clean = schedule.clean(noise, xt=xt, timesteps=timesteps)
    bound = variance_bound(clean, -torch.ones_like(x0), x0=x0, xt=xt, timesteps=timesteps, schedule=schedule)
    assert bound.tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_likelihood_is_a_distribution():
    """The masses of all 256 bins sum to 1, and each is the formula."""
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, std in ((0.1, 0.02), (-0.99, 0.3), (5.0, 0.5)):
        logs = discretised_log_likelihood(
            levels, mean=torch.tensor(mean).double(), log_std=torch.tensor(std).double().log()
        )
        assert logs.exp().sum().item() == pytest.approx(1, abs=1e-6)
        for k in (0, 1, 100, 140, 254, 255):
            expected = slow_log_mass(levels[k].item(), mean, std)
            assert logs[k].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_loss_is_mse_plus_bound(case):
    x0, noise, epsilon, variance = (tensor.float() for tensor in case)
    xt, timesteps, schedule = noised(*case[:2]).float(), torch.tensor(TIMESTEPS), Schedule(LINEAR)
    prediction = torch.cat([epsilon, variance], dim=1)
    loss = denoising_loss(prediction, x0=x0, xt=xt, noise=noise, timesteps=timesteps, schedule=schedule)
    clean = schedule.clean(epsilon, xt=xt, timesteps=timesteps)
    bound = variance_bound(clean, variance, x0=x0, xt=xt, timesteps=timesteps, schedule=schedule)
    for k in range(len(TIMESTEPS)):
        errors = [(e - n) ** 2 for e, n in zip(epsilon[k].flatten().tolist(), noise[k].flatten().tolist(), strict=True)]
        assert loss.mse[k].item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert torch.equal(loss.bound, bound)
    assert torch.equal(loss.total, loss.mse + loss.bound)


def test_bound_counts_timesteps_in_thousands():
    schedule = Schedule(ScheduleConfig(num_timesteps=250))
    source = torch.Generator().manual_seed(0)
    prediction, x0, noise = torch.randn(2, 4, 2, 2, generator=source), torch.zeros(2, 2, 2, 2), torch.ones(2, 2, 2, 2)
    timesteps = torch.tensor([0, 200])
    xt = schedule.add_noise(x0, noise=noise, timesteps=timesteps)
    given = {"x0": x0, "xt": xt, "timesteps": timesteps, "schedule": schedule}
    loss = denoising_loss(prediction, noise=noise, **given)
    epsilon, variance = prediction.chunk(2, dim=1)
    whole = variance_bound(schedule.clean(epsilon, xt=xt, timesteps=timesteps), variance, **given)
    assert loss.bound.tolist() == pytest.approx((whole / 4).tolist())


def test_bound_trains_the_variance_alone(case):
    x0, noise, epsilon, variance = (tensor.float() for tensor in case)
    prediction = torch.cat([epsilon, variance], dim=1).requires_grad_(True)
    xt, timesteps = noised(*case[:2]).float(), torch.tensor(TIMESTEPS)
    loss = denoising_loss(prediction, x0=x0, xt=xt, noise=noise, timesteps=timesteps, schedule=Schedule(LINEAR))
    (of_bound,) = torch.autograd.grad(loss.bound.sum(), prediction, retain_graph=True)
    assert not of_bound[:, :2].any()
    assert of_bound[:, 2:].abs().sum(dim=(1, 2, 3)).min() > 0
    (of_total,) = torch.autograd.grad(loss.total.sum(), prediction)
    # d/de mean((e - n)^2) = 2 (e - n) / count
    assert torch.allclose(of_total[:, :2], 2 * (epsilon - noise) / 8, atol=1e-6)
    assert torch.equal(of_total[:, 2:], of_bound[:, 2:])


def test_without_a_learned_variance_there_is_no_bound(case):
    x0, noise, epsilon, _ = (tensor.float() for tensor in case)
    xt, timesteps = noised(*case[:2]).float(), torch.tensor(TIMESTEPS)
    loss = denoising_loss(epsilon, x0=x0, xt=xt, noise=noise, timesteps=timesteps, schedule=Schedule(LINEAR))
    assert not loss.bound.any()
    assert torch.equal(loss.total, loss.mse)
    assert loss.mse.shape == (len(TIMESTEPS),)


def test_gradients_stay_finite_where_the_other_branch_is_extreme():
    """Both branches are computed for every sample; the one not taken must not poison the gradient."""
    timesteps, schedule = torch.tensor([0, 0, 999, 999]), Schedule(COSINE)
    x0, noise = torch.tensor([-1.0, 1, -1, 1]).view(4, 1, 1, 1), torch.tensor([4.0, -4, 4, -4]).view(4, 1, 1, 1)
    xt = schedule.add_noise(x0, noise=noise, timesteps=timesteps)
    prediction = torch.tensor([[-4.0, 3], [4, -3], [-4, 3], [4, -3]]).view(4, 2, 1, 1).requires_grad_(True)
    loss = denoising_loss(prediction, x0=x0, xt=xt, noise=noise, timesteps=timesteps, schedule=schedule)
    loss.total.sum().backward()
    assert loss.total.isfinite().all()
    assert prediction.grad.isfinite().all()


def test_half_predictions_are_judged_in_float32(case):
    x0, noise, epsilon, variance = (tensor.float() for tensor in case)
    prediction = torch.cat([epsilon, variance], dim=1).bfloat16()
    given = {"x0": x0, "xt": noised(*case[:2]).float(), "noise": noise, "timesteps": torch.tensor(TIMESTEPS)}
    half = denoising_loss(prediction, schedule=Schedule(LINEAR), **given)
    full = denoising_loss(prediction.float(), schedule=Schedule(LINEAR), **given)
    assert half.total.dtype == torch.float32
    assert torch.equal(half.total, full.total)
