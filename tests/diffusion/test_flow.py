"""Flows against slow formulas in float64, in both directions of time, and the grids of levels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dmp_cli.config import ScheduleConfig, build
from dmp_cli.diffusion.flow import Flow
from dmp_cli.diffusion.process import level_grid, noise_share
from dmp_cli.diffusion.processes import make_process
from dmp_cli.diffusion.schedule import Schedule
from dmp_cli.errors import ConfigError

# a and s as SiT writes them, with t = 0 at noise (Ma et al. 2024, Section 3 and Appendix).
SIT: dict[str, Callable[[float], tuple[float, float]]] = {
    "linear": lambda t: (t, 1 - t),
    "cosine": lambda t: (math.sin(math.pi / 2 * t), math.cos(math.pi / 2 * t)),
    "vp": lambda t: _variance_preserving(1 - t),
}
# The same as REPA writes them, with t = 0 at data (Yu et al. 2024, Section 2).
REPA: dict[str, Callable[[float], tuple[float, float]]] = {
    "linear": lambda t: (1 - t, t),
    "cosine": lambda t: (math.cos(math.pi / 2 * t), math.sin(math.pi / 2 * t)),
    "vp": lambda t: _variance_preserving(t),
}
LEVELS = [0.05, 0.3, 0.5, 0.77, 0.98]
ALL = [(flow, kind, paths[kind]) for flow, paths in (("sit", SIT), ("repa", REPA)) for kind in paths]


def _variance_preserving(time: float) -> tuple[float, float]:
    """exp(-1/2 int_0^time beta), beta from 0.1 to 20, the integral by a sum of many thin slices."""
    slices = 20_000
    beta = sum(0.1 + (i + 0.5) / slices * time * 19.9 for i in range(slices)) * time / slices
    return math.exp(-beta / 2), math.sqrt(1 - math.exp(-beta))


def flow_of(flow: str, kind: str, prediction: str = "velocity") -> Flow:
    found = make_process(ScheduleConfig(flow=flow, kind=kind, prediction=prediction))  # type: ignore[arg-type]
    assert isinstance(found, Flow)
    return found


def sample(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x0, noise = torch.randn(2, len(LEVELS), 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x0, noise


@pytest.mark.parametrize(("flow", "kind", "path"), ALL)
def test_noised_samples_targets_and_losses(flow: str, kind: str, path: Any) -> None:
    (x0, noise), levels, step = sample(), torch.tensor(LEVELS, dtype=torch.float64), 1e-4
    found = {name: flow_of(flow, kind, name) for name in ("velocity", "epsilon", "score")}
    xt = found["velocity"].add_noise(x0, noise=noise, timesteps=levels)
    targets = {name: one.target(x0, noise=noise, timesteps=levels) for name, one in found.items()}
    guess = torch.cat([torch.full_like(x0, 0.3), torch.full_like(x0, math.nan)], dim=1)  # the second half is untrained
    losses = {name: one.loss(guess, x0=x0, xt=xt, noise=noise, timesteps=levels) for name, one in found.items()}
    for row, t in enumerate(LEVELS):
        a, s = path(t)
        torch.testing.assert_close(xt[row], a * x0[row] + s * noise[row], rtol=1e-6, atol=1e-6)
        (a1, s1), (a2, s2) = path(t - step), path(t + step)  # the velocity is d x_t / dt
        velocity = ((a2 - a1) * x0[row] + (s2 - s1) * noise[row]) / (2 * step)
        torch.testing.assert_close(targets["velocity"][row], velocity, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(targets["epsilon"][row], noise[row])
        torch.testing.assert_close(targets["score"][row], -(xt[row] - a * x0[row]) / s**2, rtol=1e-5, atol=1e-5)
        expected = {
            "velocity": (0.3 - velocity).square().mean(),
            "epsilon": (0.3 - noise[row]).square().mean(),
            "score": (s * 0.3 + noise[row]).square().mean(),  # SiT, training_losses without a weight
        }
        for name, value in expected.items():
            torch.testing.assert_close(losses[name].total[row], value, rtol=1e-3, atol=1e-4)
            assert losses[name].bound[row] == 0


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_two_directions_are_one_path(kind: str) -> None:
    (x0, noise), t = sample(), torch.tensor(LEVELS, dtype=torch.float64)
    sit, repa = flow_of("sit", kind), flow_of("repa", kind)
    torch.testing.assert_close(sit.add_noise(x0, noise=noise, timesteps=t),
                               repa.add_noise(x0, noise=noise, timesteps=1 - t))  # fmt: skip
    torch.testing.assert_close(sit.target(x0, noise=noise, timesteps=t), -repa.target(x0, noise=noise, timesteps=1 - t))
    if kind == "linear":
        torch.testing.assert_close(sit.target(x0, noise=noise, timesteps=t), x0 - noise)
        torch.testing.assert_close(repa.target(x0, noise=noise, timesteps=t), noise - x0)


@pytest.mark.parametrize(("flow", "kind", "path"), ALL)
def test_a_prediction_of_any_kind_implies_the_same_velocity_and_score(flow: str, kind: str, path: Any) -> None:
    x0, noise = sample()
    for row, t in enumerate(LEVELS):
        level, one, other = torch.tensor(t, dtype=torch.float64), x0[row : row + 1], noise[row : row + 1]
        at: dict[str, Any] = {"noise": other, "timesteps": level[None]}
        exact = flow_of(flow, kind).target(one, **at)
        xt = flow_of(flow, kind).add_noise(one, **at)
        for name in ("velocity", "epsilon", "score"):
            process = flow_of(flow, kind, name)
            velocity = process.velocity(process.target(one, **at), xt=xt, level=level)
            torch.testing.assert_close(velocity, exact, rtol=1e-8, atol=1e-8)
            score = process.score(velocity, xt=xt, level=level)
            torch.testing.assert_close(score, -other / path(t)[1], rtol=1e-5, atol=1e-5)


def test_levels_are_uniform_and_stay_off_where_a_formula_breaks() -> None:
    uniform = torch.tensor([0.0, 0.25, 1 - 1e-12], dtype=torch.float64)
    for flow in ("sit", "repa"):
        assert flow_of(flow, "linear").training_levels(uniform).tolist() == [0, 0.25, 1]
        ends = flow_of(flow, "cosine", "score").training_levels(uniform).tolist()
        assert ends == pytest.approx([1e-3, 0.2505, 0.999])
    assert flow_of("sit", "vp").training_levels(uniform).tolist() == pytest.approx([0, 0.25, 1 - 1e-5], abs=1e-5)
    assert flow_of("sit", "linear").levels(uniform).tolist() == [1, 0.75, pytest.approx(0, abs=1e-6)]
    assert flow_of("repa", "linear").levels(uniform).tolist() == [0, 0.25, 1]
    assert flow_of("sit", "linear").training_levels(uniform).dtype == torch.float32


def test_grids_and_bands_begin_with_low_noise() -> None:
    sit, repa, ddpm = (ScheduleConfig(**told) for told in ({"flow": "sit", "prediction": "velocity"},
                                                           {"flow": "repa", "prediction": "velocity"}, {}))  # fmt: skip
    assert level_grid(sit, 5).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert level_grid(repa, 5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert len(level_grid(sit)) == 1000
    assert torch.equal(level_grid(ddpm), torch.arange(1000))
    assert level_grid(ddpm, 3).tolist() == [0, 500, 999]
    assert [noise_share(0.25, one) for one in (sit, repa)] == [0.75, 0.25]
    assert noise_share(999, ddpm) == 1
    assert make_process(sit).edges(4) == (1, 0.75, 0.5, 0.25, 0)
    assert make_process(ddpm).edges(3) == (0, 334, 667, 1000)


def test_a_ddpm_is_as_before() -> None:
    process = make_process(ScheduleConfig())
    assert isinstance(process, Schedule)
    drawn = process.training_levels(torch.tensor([0.0, 0.4567, 0.9999999], dtype=torch.float64))
    assert drawn.tolist() == [0, 456, 999]
    assert "flow" not in ScheduleConfig().model_dump()


@pytest.mark.parametrize(
    "wrong", [{"kind": "vp"}, {"prediction": "score"}, {"flow": "repa", "prediction": "v_prediction"}]
)
def test_what_is_of_the_other_kind_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"a DDPM|the flow of"):
        build(ScheduleConfig, **wrong)
