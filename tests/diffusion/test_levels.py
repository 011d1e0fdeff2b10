"""Which levels training draws, against densities and formulas of the papers, and how much their losses count."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import pytest
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3

from dmp_cli.config import LevelRule, ScheduleConfig, build
from dmp_cli.diffusion import make_process, make_weigh, noise_shares
from dmp_cli.diffusion.flow import Flow
from dmp_cli.diffusion.schedule import noise_betas
from dmp_cli.errors import ConfigError

GRID = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
REPA = ScheduleConfig(flow="repa", prediction="velocity")
SIT = ScheduleConfig(flow="sit", prediction="velocity")


def shares(**rule: Any) -> torch.Tensor:
    return noise_shares(GRID, build(LevelRule, **rule))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.8, 0.5), (-1.5, 2.0)])
def test_logit_normal_has_the_density_of_the_paper(mean: float, std: float) -> None:
    """Its cumulative density is the integral of the paper's density: at the quantile of u it is u."""
    found = shares(kind="logit-normal", mean=mean, std=std)
    normal = NormalDist(mean, std)
    for u, s in zip(GRID[::37].tolist(), found[::37].tolist(), strict=True):
        assert s == pytest.approx(1 / (1 + math.exp(-normal.inv_cdf(u))), abs=1e-9)

    def density(s: float) -> float:
        exponent = -((math.log(s / (1 - s)) - mean) ** 2) / (2 * std**2)
        return math.exp(exponent) / (std * math.sqrt(2 * math.pi) * s * (1 - s))

    low, high = float(found[199]), float(found[799])  # the quantiles of 0.2 and 0.8
    slices = 4000
    width = (high - low) / slices
    assert sum(density(low + (k + 0.5) * width) for k in range(slices)) * width == pytest.approx(0.6, abs=1e-5)


def test_logit_normal_is_that_of_diffusers() -> None:
    drawn = compute_density_for_timestep_sampling(
        "logit_normal", 200_000, logit_mean=0.5, logit_std=0.7, generator=torch.Generator().manual_seed(0)
    )
    ours = shares(kind="logit-normal", mean=0.5, std=0.7)
    torch.testing.assert_close(drawn.double().quantile(GRID[49::100]), ours[49::100], atol=5e-3, rtol=0)


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.81, 1.29, 1.75])
def test_mode_is_the_formula_of_diffusers(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda **given: 1 - GRID)
    theirs = compute_density_for_timestep_sampling("mode", len(GRID), mode_scale=scale)
    found = shares(kind="mode", mode_scale=scale)
    torch.testing.assert_close(found, theirs, rtol=0, atol=1e-12)
    assert (found.diff() > 0).all()
    if scale == 0:
        torch.testing.assert_close(found, GRID)


def test_a_shift_is_equation_23() -> None:
    found = shares(shift=3.0)
    for u, s in zip(GRID[::111].tolist(), found[::111].tolist(), strict=True):
        assert s == pytest.approx(3 * u / (1 + 2 * u), rel=1e-12)
    torch.testing.assert_close(shares(kind="logit-normal", shift=3.0), shares(kind="logit-normal", mean=math.log(3)))


@pytest.mark.parametrize("kind", ["uniform", "logit-normal", "mode"])
def test_the_ends_of_the_uniform_numbers_are_ends_of_the_levels(kind: Any) -> None:
    ends = torch.tensor([0.0, 1 - 2**-53, 1.0], dtype=torch.float64)
    found = noise_shares(ends, LevelRule(kind=kind, shift=7.0))
    assert found[[0, 2]].tolist() == pytest.approx([0, 1], abs=1e-12)
    rule = LevelRule(kind=kind, shift=1.5)
    assert make_process(ScheduleConfig()).training_levels(ends, rule).tolist() == [0, 999, 999]
    score = make_process(ScheduleConfig(flow="repa", prediction="score"))
    assert score.training_levels(ends, rule).tolist() == pytest.approx([1e-3, 0.999, 0.999], abs=3e-4)


def test_both_directions_of_time_draw_the_same_noise() -> None:
    rule = LevelRule(kind="logit-normal", mean=1.0, shift=2.0)
    sit, repa = (make_process(one).training_levels(GRID, rule) for one in (SIT, REPA))
    torch.testing.assert_close(sit, 1 - noise_shares(1 - GRID, rule).float())
    torch.testing.assert_close(repa, noise_shares(GRID, rule).float())
    assert float(repa.median()) > 0.8 > 0.2 > float(sit.median())
    steps = make_process(ScheduleConfig()).training_levels(GRID, rule)
    assert steps.tolist() == [int(1000 * s) for s in noise_shares(GRID, rule).tolist()]


def test_uniform_draws_are_the_same_numbers_as_ever() -> None:
    for schedule in (ScheduleConfig(), SIT, REPA):
        process = make_process(schedule)
        assert torch.equal(process.training_levels(GRID), process.training_levels(GRID, LevelRule()))
    assert torch.equal(make_process(SIT).training_levels(GRID, LevelRule()), GRID.float())


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("epsilon", lambda snr: min(snr, 5) / snr), ("v_prediction", lambda snr: min(snr, 5) / (snr + 1))],
)
def test_min_snr_is_the_papers(prediction: Any, expected: Any) -> None:
    schedule = ScheduleConfig(prediction=prediction)
    weigh = make_weigh("min-snr", schedule)
    assert weigh is not None
    kept = (1 - noise_betas(schedule)).cumprod(0)
    for t, weight in zip((0, 100, 500, 999), weigh(torch.tensor([0, 100, 500, 999])).tolist(), strict=True):
        assert weight == pytest.approx(expected(float(kept[t] / (1 - kept[t]))), rel=1e-6)


@pytest.mark.parametrize(("name", "theirs"), [("sigma-sqrt", "sigma_sqrt"), ("cosmap", "cosmap")])
def test_weights_of_sd3_are_those_of_diffusers(name: Any, theirs: str) -> None:
    for schedule, levels in ((REPA, GRID), (SIT, 1 - GRID)):
        weigh = make_weigh(name, schedule)
        assert weigh is not None
        torch.testing.assert_close(weigh(levels), compute_loss_weighting_for_sd3(theirs, GRID).float())
        assert weigh(torch.tensor([0.0, 1.0])).isfinite().all()


@pytest.mark.parametrize("flow", ["sit", "repa"])
@pytest.mark.parametrize("kind", ["linear", "cosine", "vp"])
@pytest.mark.parametrize("prediction", ["epsilon", "score"])
def test_velocity_weighs_as_the_velocity_that_is_implied(flow: Any, kind: Any, prediction: Any) -> None:
    schedule = ScheduleConfig(flow=flow, kind=kind, prediction=prediction)
    process, levels = make_process(schedule), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    assert isinstance(process, Flow)
    x0, noise, guess = torch.randn(3, 3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    xt = process.add_noise(x0, noise=noise, timesteps=levels)
    mse = process.loss(guess, x0=x0, xt=xt, noise=noise, timesteps=levels).mse
    exact = process.target(x0, noise=noise, timesteps=levels)
    velocity, likelihood = (make_weigh(name, schedule) for name in ("velocity", "likelihood"))  # type: ignore[arg-type]
    assert velocity is not None
    assert likelihood is not None
    for k, level in enumerate(levels):
        implied, true = (process.velocity(one[k], xt=xt[k], level=level) for one in (guess, exact))
        expected = float((implied - true).square().mean())
        assert float(velocity(levels)[k] * mse[k]) == pytest.approx(expected, rel=1e-5)
        s = float(process.coefficients(level).noise)
        diffusion = math.sqrt(float(velocity(levels)[k])) * s
        assert float(likelihood(levels)[k]) == pytest.approx(diffusion / s**2, rel=1e-5)
        if kind == "vp":  # where the diffusion is half of beta
            time = float(level) if flow == "repa" else 1 - float(level)
            assert diffusion == pytest.approx((0.1 + time * 19.9) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("weight", "schedule", "words"),
    [
        ("min-snr", SIT, "for a DDPM, and this backbone predicts the velocity of a linear flow"),
        ("cosmap", ScheduleConfig(), "for the velocity of a linear flow, and this backbone predicts epsilon of a DDPM"),
        ("sigma-sqrt", ScheduleConfig(flow="sit", kind="cosine", prediction="velocity"), "velocity of a cosine flow"),
        ("velocity", SIT, "for a flow that predicts noise or score"),
        ("likelihood", ScheduleConfig(prediction="v_prediction"), "predicts v_prediction of a DDPM"),
    ],
)
def test_a_weight_of_another_objective_is_refused(weight: Any, schedule: ScheduleConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_weigh(weight, schedule)
    assert make_weigh("none", schedule) is None
