"""The random numbers of a step depend only on seed, step and place, and no two of them share numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.config import ScheduleConfig, TrainConfig
from dmp_cli.diffusion.schedule import Schedule
from dmp_cli.training.noise import Draws, NoiseSource, to_device

BATCH = 6


def noise_source(*, places: range = range(BATCH), **changes: Any) -> NoiseSource:
    config = TrainConfig(data=Path("unused"), batch_size=BATCH, seed=changes.pop("seed", 3), class_dropout=0.5)
    options: dict[str, Any] = {
        "process": Schedule(ScheduleConfig()),
        "has_posterior": True,
        "num_prompts": 5,
        **changes,
    }
    options.setdefault("drops_condition", True)
    return NoiseSource(config=config, places=places, sample_shape=(2, 4, 4), **options)


def fields(draws: Draws) -> dict[str, torch.Tensor]:
    return {name: value for name, value in vars(draws).items() if value is not None}


def test_shapes_and_ranges() -> None:
    draws = noise_source().draw(0)
    shapes = {name: tuple(value.shape) for name, value in fields(draws).items()}
    images = (BATCH, 2, 4, 4)
    assert shapes == {
        **{"timesteps": (BATCH,), "noise": images, "posterior": images},
        **{"gate_noise": (BATCH, 5), "dropped": (BATCH,)},
    }
    many = torch.cat([noise_source().draw(step).timesteps for step in range(300)])
    assert 0 <= int(many.min()) < 20
    assert 980 < int(many.max()) <= 999
    dropped = torch.stack([noise_source().draw(step).dropped.float().mean() for step in range(300)])  # type: ignore[union-attr]
    assert float(dropped.mean()) == pytest.approx(0.5, abs=0.05)


def test_noise_and_posterior_are_independent() -> None:
    pairs = [noise_source().draw(step) for step in range(200)]
    noise = torch.cat([draws.noise.flatten() for draws in pairs])
    posterior = torch.cat([draws.posterior.flatten() for draws in pairs if draws.posterior is not None])
    assert abs(float(torch.corrcoef(torch.stack([noise, posterior]))[0, 1])) < 0.02
    assert float(noise.std()) == pytest.approx(1, abs=0.01)


def test_a_process_draws_its_part_of_the_whole() -> None:
    whole = noise_source().draw(7)
    for places in (range(3), range(3, 6), range(4, 5)):
        part = noise_source(places=places).draw(7)
        rows = slice(places.start, places.stop)
        assert torch.equal(part.noise, whole.noise[rows])
        assert part.posterior is not None
        assert whole.posterior is not None
        assert torch.equal(part.posterior, whole.posterior[rows])
        for name in ("timesteps", "gate_noise", "dropped"):  # a gate needs those of the whole batch
            assert torch.equal(getattr(part, name), getattr(whole, name))


def test_every_draw_changes_with_seed_and_step() -> None:
    first = fields(noise_source().draw(7))
    assert all(torch.equal(value, first[name]) for name, value in fields(noise_source().draw(7)).items())
    for other in (noise_source().draw(8), noise_source(seed=4).draw(7)):
        assert not any(torch.equal(value, first[name]) for name, value in fields(other).items())


def test_what_is_not_needed_is_not_drawn() -> None:
    draws = noise_source(has_posterior=False, num_prompts=0, drops_condition=False).draw(0)
    assert set(fields(draws)) == {"timesteps", "noise"}
    assert set(fields(draws.to(torch.device("cpu")))) == {"timesteps", "noise"}
    assert to_device(draws.noise, torch.device("cpu")) is draws.noise
