"""The samplers of SiT and REPA: against slow formulas, and on data whose flow is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dmp_cli.config import SampleConfig, ScheduleConfig
from dmp_cli.diffusion.flow import Flow
from dmp_cli.errors import ConfigError
from dmp_cli.sampling.flow import check_kind, integrate, read_levels, visited_levels
from dmp_cli.sampling.scheduler import check_steps

MEAN, SPREAD = 0.7, 0.25  # of Gaussian data, whose velocity field is known


def schedule_of(flow: str, kind: str = "linear", prediction: str = "velocity") -> ScheduleConfig:
    return ScheduleConfig(flow=flow, kind=kind, prediction=prediction)  # type: ignore[arg-type]


def config_of(sampler: str, steps: int) -> SampleConfig:
    return SampleConfig(sampler=sampler, steps=steps)  # type: ignore[arg-type]


def exact(schedule: ScheduleConfig, spread: float = SPREAD) -> Callable[[torch.Tensor, float], torch.Tensor]:
    """The best prediction for data N(MEAN, spread^2): E[a' x_0 + s' noise | x_t], of the noise, or the score."""
    flow = Flow(schedule)

    def predict(x: torch.Tensor, level: float) -> torch.Tensor:
        a, s, da, ds = (float(value) for value in flow.coefficients(torch.tensor(level, dtype=torch.float64)))
        variance = a * a * spread**2 + s * s
        away = (x - a * MEAN) / variance
        if schedule.prediction == "epsilon":
            return s * away
        if schedule.prediction == "score":
            return -away
        return da * (MEAN + a * spread**2 * away) + ds * s * away

    return predict


def noises(step: int) -> torch.Tensor:
    return torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(1000 + step))


def drawn(sampler: str, schedule: ScheduleConfig, steps: int, *, spread: float = SPREAD) -> torch.Tensor:
    start = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    config = config_of(sampler, steps)
    return integrate(start, predict=exact(schedule, spread), draw=noises, config=config, schedule=schedule)


@pytest.mark.parametrize(
    ("sampler", "flow", "kind", "prediction"),
    [
        *((sampler, flow, "linear", "velocity") for sampler in ("sde-euler", "ode-euler", "ode-heun")
          for flow in ("sit", "repa")),
        ("ode-heun", "sit", "cosine", "epsilon"),
        ("sde-euler", "sit", "cosine", "velocity"),
        ("sde-euler", "repa", "cosine", "velocity"),
        ("sde-euler", "sit", "vp", "score"),
        ("ode-heun", "sit", "vp", "velocity"),
    ],
)  # fmt: skip
def test_an_exact_field_draws_the_data(sampler: str, flow: str, kind: str, prediction: str) -> None:
    # Where vp's last step begins there is noise of 0.14, which the step along the mean takes off narrow data too.
    spread = 1.0 if (sampler, kind) == ("sde-euler", "vp") else SPREAD
    found = drawn(sampler, schedule_of(flow, kind, prediction), 100, spread=spread)
    assert found.dtype == torch.float32
    assert found.mean().item() == pytest.approx(MEAN, abs=0.02)
    # The SDE's last step goes to the mean, and Euler's of the ODE have an error of the first order.
    assert found.std().item() == pytest.approx(spread, rel=0.02 if sampler == "ode-heun" else 0.08)


def test_heun_is_of_the_second_order_and_euler_of_the_first() -> None:
    schedule = schedule_of("sit", "cosine")
    start = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    right = MEAN + SPREAD * start  # along the flow of a Gaussian a point keeps its quantile
    gaps = {
        sampler: [(drawn(sampler, schedule, steps) - right).abs().max().item() for steps in (20, 40)]
        for sampler in ("ode-euler", "ode-heun")
    }
    assert gaps["ode-euler"][0] / gaps["ode-euler"][1] == pytest.approx(2, rel=0.15)
    assert gaps["ode-heun"][0] / gaps["ode-heun"][1] == pytest.approx(4, rel=0.3)
    assert gaps["ode-heun"][1] < 0.01


def slow(sampler: str, flow: str, x: float, noise: list[float], field: Callable[[float, float], float]) -> float:
    """The linear path in plain numbers, as each of the two repositories writes its loop."""
    steps = len(noise)
    if sampler != "sde-euler":
        times = [k / steps if flow == "sit" else 1 - k / steps for k in range(steps + 1)]
        for k in range(steps):
            span, slope = times[k + 1] - times[k], field(x, times[k])
            guess = x + span * slope
            if sampler == "ode-heun" and (flow == "sit" or k < steps - 1):  # REPA: i < num_steps - 1
                guess = x + span * (0.5 * slope + 0.5 * field(guess, times[k + 1]))
            x = guess
        return x
    if flow == "sit":  # drift v + sigma score on linspace(0, 0.96, steps), then the mean over the last 0.04
        dt = 0.96 / (steps - 1)
        for k in range(steps):
            t, v = k * dt, field(x, k * dt)
            ratio = t  # alpha / d_alpha
            score = (ratio * v - x) / ((1 - t) ** 2 + ratio * (1 - t))
            length = dt if k < steps - 1 else 0.04
            x = x + (v + (1 - t) * score) * length
            x += math.sqrt(2 * (1 - t)) * math.sqrt(dt) * noise[k] if k < steps - 1 else 0
        return x
    times = [1 - 0.96 * k / (steps - 1) for k in range(steps)] + [0.0]
    for k in range(steps):
        t, dt, v = times[k], times[k + 1] - times[k], field(x, times[k])
        ratio = (1 - t) / -1
        score = (ratio * v - x) / (t * t - ratio * t)
        x = x + (v - 0.5 * (2 * t) * score) * dt
        x += math.sqrt(2 * t) * math.sqrt(abs(dt)) * noise[k] if k < steps - 1 else 0
    return x


@pytest.mark.parametrize("flow", ["sit", "repa"])
@pytest.mark.parametrize("sampler", ["sde-euler", "ode-euler", "ode-heun"])
def test_steps_against_the_loops_of_both(sampler: str, flow: str) -> None:
    values = [0.3, -1.1, 0.8, 0.2, -0.4]
    found = integrate(
        torch.full((1, 1, 1, 1), 0.9),
        predict=lambda x, t: torch.cat([torch.sin(2 * x) + t * t, x * math.nan], dim=1),
        draw=lambda step: torch.full((1, 1, 1, 1), values[step]),
        config=config_of(sampler, 5),
        schedule=schedule_of(flow),
    )
    expected = slow(sampler, flow, 0.9, values, lambda x, t: math.sin(2 * x) + t * t)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_levels_that_are_read() -> None:
    assert read_levels(config_of("ode-euler", 4), schedule_of("sit")) == [0, 0.25, 0.5, 0.75]
    assert read_levels(config_of("ode-heun", 4), schedule_of("sit")) == [0, 0.25, 0.5, 0.75, 1]
    assert read_levels(config_of("ode-heun", 4), schedule_of("repa")) == [1, 0.75, 0.5, 0.25]
    assert read_levels(config_of("sde-euler", 3), schedule_of("repa")) == pytest.approx([1, 0.52, 0.04])
    ends = visited_levels(config_of("ode-euler", 2), schedule_of("sit", "cosine", "epsilon"))
    assert ends.tolist() == pytest.approx([1e-3, 0.5, 0.999])


@pytest.mark.parametrize(
    ("schedule", "config", "words"),
    [
        (schedule_of("sit"), {"sampler": "ddim"}, "--sampler ddim removes the noise of a DDPM, .* is a flow"),
        (ScheduleConfig(), {"sampler": "ode-euler"}, "--sampler ode-euler is for a flow"),
        (schedule_of("repa"), {"sampler": "sde-euler", "steps": 1}, "--steps 1: sde-euler takes at least 2"),
    ],
)
def test_samplers_of_the_other_kind_are_refused(schedule: Any, config: dict[str, Any], words: str) -> None:
    for check in (check_kind, check_steps):
        with pytest.raises(ConfigError, match=words):
            check(SampleConfig(**config), schedule)
    check_steps(SampleConfig(sampler="ode-heun", steps=5000), schedule_of("sit"))  # no timesteps, no limit
