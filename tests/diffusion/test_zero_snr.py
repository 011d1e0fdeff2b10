"""Zero terminal SNR, and a prediction of x_0, against formulas in float64 written from the papers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dmp_cli.config import ScheduleConfig, build
from dmp_cli.diffusion.loss import denoising_loss
from dmp_cli.diffusion.schedule import Schedule, noise_betas
from dmp_cli.errors import ConfigError

STABLE: dict[str, Any] = {"kind": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
TIMESTEPS = [0, 1, 400, 998, 999]


def slow_kept() -> list[float]:
    """abar_t, rescaled number by number (Lin et al. 2023, Algorithm 1)."""
    low, high = math.sqrt(0.00085), math.sqrt(0.012)
    roots, product = [], 1.0
    for t in range(1000):
        product *= 1 - (low + (high - low) * t / 999) ** 2
        roots.append(math.sqrt(product))
    first, last = roots[0], roots[-1]
    return [((root - last) * first / (first - last)) ** 2 for root in roots]


def test_the_rescaled_noise_ends_in_noise_and_begins_as_before() -> None:
    betas = noise_betas(ScheduleConfig(**STABLE, prediction="v_prediction", zero_terminal_snr=True))
    kept = (1 - betas).cumprod(0)
    assert kept.tolist() == pytest.approx(slow_kept(), rel=1e-8, abs=1e-15)
    assert betas[-1] == 1
    assert kept[-1] == 0
    assert betas[0].item() == pytest.approx(0.00085)
    assert ((betas > 0) & (betas <= 1)).all()


@pytest.mark.parametrize("zero", [True, None])
@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_the_loss_by_hand(prediction: Any, zero: Any) -> None:
    config = ScheduleConfig(**STABLE, prediction=prediction, zero_terminal_snr=zero)
    schedule, timesteps = Schedule(config), torch.tensor(TIMESTEPS)
    source = torch.Generator().manual_seed(0)
    x0, noise, guess = torch.randn(3, 5, 2, 2, 2, dtype=torch.float64, generator=source)
    variance = 2 * torch.rand(5, 2, 2, 2, dtype=torch.float64, generator=source) - 1
    xt = schedule.add_noise(x0, noise=noise, timesteps=timesteps)
    given = {"x0": x0, "xt": xt, "noise": noise, "timesteps": timesteps, "schedule": schedule}
    plain, whole = denoising_loss(guess, **given), denoising_loss(torch.cat([guess, variance], 1), **given)
    every = slow_kept() if zero else (1 - noise_betas(config)).cumprod(0).tolist()
    for row, t in enumerate(TIMESTEPS):
        kept = every[t]
        target = x0[row] if prediction == "sample" else math.sqrt(kept) * noise[row] - math.sqrt(1 - kept) * x0[row]
        assert plain.total[row].item() == pytest.approx(float((guess[row] - target).square().mean()), rel=1e-5)
        assert whole.mse[row].item() == plain.mse[row].item()
        clean = guess[row]
        if prediction == "v_prediction":
            clean = math.sqrt(kept) * xt[row] - math.sqrt(1 - kept) * guess[row]
        if t > 0:
            expected = slow_divergence(x0[row], clean, variance[row], before=every[t - 1], kept=kept)
            assert whole.bound[row].item() == pytest.approx(expected, rel=1e-4), t
    assert whole.total.isfinite().all()
    if zero:
        assert torch.equal(xt[-1], noise[-1])


def slow_divergence(x0: Any, clean: Any, v: Any, *, before: float, kept: float) -> float:
    """KL of two Gaussians whose means differ by that of x_0 alone, in bits (Nichol and Dhariwal 2021)."""
    beta = 1 - kept / before
    true = beta * (1 - before) / (1 - kept)
    fraction = (v + 1) / 2
    ours = (fraction * math.log(beta) + (1 - fraction) * math.log(true)).exp()
    apart = math.sqrt(before) * beta / (1 - kept) * (x0 - clean)
    kl = ((ours / true).log() + (true + apart**2) / ours - 1) / 2
    return float(kl.mean()) / math.log(2)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_implies_the_same_noise_and_image(prediction: Any) -> None:
    schedule, timesteps = Schedule(ScheduleConfig(prediction=prediction)), torch.tensor([5, 600])
    x0, noise = torch.randn(2, 2, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    at = {"xt": schedule.add_noise(x0, noise=noise, timesteps=timesteps), "timesteps": timesteps}
    target = schedule.target(x0, noise=noise, timesteps=timesteps)
    torch.testing.assert_close(schedule.clean(target, **at), x0, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(schedule.epsilon(target, **at), noise, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"prediction": "epsilon"}, "the last timestep is pure noise"),
        ({"flow": "sit", "prediction": "velocity"}, "ends in pure noise anyway"),
    ],
)
def test_where_it_makes_no_sense_it_is_refused(told: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(ScheduleConfig, zero_terminal_snr=True, **told)
    assert "zero_terminal_snr" not in build(ScheduleConfig, **told).model_dump()
