"""The samplers against slow float64 loops written from the equations, and the numbers of steps they take."""

import numpy as np
import pytest
import torch

from dmp_cli.config import SampleConfig, ScheduleConfig
from dmp_cli.errors import ConfigError
from dmp_cli.runtime import randomness
from dmp_cli.sampling.sampler import resolve
from dmp_cli.sampling.scheduler import build_scheduler

from .toy import Toy, betas_of, fast


def evaluate(toy, x, timestep):
    """The toy in float64: (eps, variance output)."""
    output = toy(torch.tensor(x), torch.full((len(x),), int(timestep))).numpy()
    return output[:, : x.shape[1]], output[:, x.shape[1] :]


def start_of(toy, indices, seed=0):
    return randomness.normal("start", toy.sample_shape, seed=seed, indices=indices).double().numpy()


def slow_ddpm(toy, indices, num_steps, *, clip, seed=0):
    """Ancestral sampling of the respaced chain: posterior mean, and a log variance between its two bounds."""
    count, x = len(toy.kept), start_of(toy, indices, seed)
    timesteps = [round(k * (count - 1) / (num_steps - 1)) for k in range(num_steps)][::-1]
    for step, t in enumerate(timesteps):
        kept = toy.kept[t]
        kept_before = toy.kept[timesteps[step + 1]] if step + 1 < num_steps else 1.0
        beta = 1 - kept / kept_before
        epsilon, variance = evaluate(toy, x, t)
        x0 = (x - np.sqrt(1 - kept) * epsilon) / np.sqrt(kept)
        x0 = np.clip(x0, -1, 1) if clip else x0
        mean = np.sqrt(kept_before) * beta / (1 - kept) * x0
        mean += np.sqrt(1 - beta) * (1 - kept_before) / (1 - kept) * x
        if step + 1 == num_steps:
            return mean
        low, high = np.log(beta * (1 - kept_before) / (1 - kept)), np.log(beta)
        fraction = (variance + 1) / 2 if toy.learns_sigma else 0.0
        sources = [randomness.torch_generator("sample", seed=seed, step=step, index=index) for index in indices]
        noise = np.stack([torch.randn(toy.sample_shape, generator=source).numpy() for source in sources])
        x = mean + np.exp((fraction * high + (1 - fraction) * low) / 2) * noise
    raise AssertionError


def slow_ddim(toy, indices, num_steps, *, clip=False, seed=0):
    """Song et al. 2021, Eq. 12 with eta 0, in equal strides down to 0; eps goes with the clipped x_0."""
    stride, x = len(toy.kept) // num_steps, start_of(toy, indices, seed)
    for t in range((num_steps - 1) * stride, -1, -stride):
        kept, kept_before = toy.kept[t], toy.kept[t - stride] if t >= stride else 1.0
        epsilon, _ = evaluate(toy, x, t)
        x0 = (x - np.sqrt(1 - kept) * epsilon) / np.sqrt(kept)
        if clip:
            x0 = np.clip(x0, -1, 1)
            epsilon = (x - np.sqrt(kept) * x0) / np.sqrt(1 - kept)
        x = np.sqrt(kept_before) * x0 + np.sqrt(1 - kept_before) * epsilon
    return x


def bound_for(num_steps):
    """With schedule tables in float32 the difference would be some 1e-5; a thousand float32 steps round to as much."""
    return 2e-6 if num_steps <= 250 else 1e-5


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("learns_sigma", [False, True])
def test_ddpm_is_the_respaced_posterior(kind, clip, learns_sigma):
    toy, indices = Toy(kind=kind, learns_sigma=learns_sigma), range(5, 8)
    expected = slow_ddpm(toy, indices, 250, clip=clip, seed=3)
    assert np.abs(expected).max() == 1 if clip else 1.2 < np.abs(expected).max() < 3
    assert np.abs(fast(toy, indices, clip=clip, steps=250, seed=3) - expected).max() <= bound_for(250)


@pytest.mark.parametrize(("num_steps", "count"), [(7, 1000), (1000, 1000), (25, 100), (100, 100)])
def test_ddpm_of_other_lengths(num_steps, count):
    toy, indices = Toy(count=count), range(2)
    expected = slow_ddpm(toy, indices, num_steps, clip=False)
    assert np.abs(fast(toy, indices, steps=num_steps) - expected).max() <= bound_for(num_steps)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("num_steps", "learns_sigma"), [(50, True), (50, False), (7, True), (1000, True)])
def test_ddim_walks_in_equal_strides(kind, clip, num_steps, learns_sigma):
    toy, indices = Toy(kind=kind, learns_sigma=learns_sigma), range(5, 8)
    expected = slow_ddim(toy, indices, num_steps, clip=clip, seed=3)
    got = fast(toy, indices, clip=clip, steps=num_steps, sampler="ddim", seed=3)
    assert np.abs(expected).max() == 1 if clip else 1 < np.abs(expected).max() < 3
    assert np.abs(got - expected).max() <= bound_for(num_steps)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_dpm_and_a_fine_ddim_converge_to_the_flow(kind):
    toy, indices = Toy(kind=kind), range(3)
    limit = toy.flow(start_of(toy, indices))
    errors = {n: np.abs(fast(toy, indices, steps=n, sampler="dpm++") - limit).max() for n in (10, 20, 50, 200, 999)}
    assert errors[10] / 2 > errors[20] > 3 * errors[50] > 9 * errors[200]
    assert errors[999] < 2e-3
    ddim = {n: np.abs(fast(toy, indices, steps=n, sampler="ddim") - limit).max() for n in (50, 200, 1000)}
    assert ddim[50] / 3 > ddim[200] > 4 * ddim[1000]  # of first order in the stride
    assert ddim[1000] < 1e-2
    assert errors[50] < ddim[50] / 2


def test_schedulers_use_float64_tables():
    for sampler in ("ddpm", "ddim", "dpm++"):
        config = SampleConfig(sampler=sampler, steps=10)
        scheduler = build_scheduler(ScheduleConfig(), config, learns_sigma=True, clips=False)
        assert scheduler.alphas_cumprod.dtype == torch.float64
        assert np.abs(scheduler.alphas_cumprod.numpy() - np.cumprod(1 - betas_of("linear"))).max() < 1e-15


def test_the_numbers_of_ddim_steps_that_are_offered_instead(backbone):
    for asked in (334, 501, 600, 899):
        with pytest.raises(ConfigError) as caught:
            resolve(SampleConfig(steps=asked, sampler="ddim"), backbone)
        offered = [int(word) for word in caught.value.hint.split() if word.isdigit()]
        assert len(offered) == 2
        for steps in offered:
            resolve(SampleConfig(steps=steps, sampler="ddim"), backbone)
    for steps in (1, 2, 3, 7, 30, 50, 250, 999):
        resolve(SampleConfig(steps=steps, sampler="ddim"), backbone)
