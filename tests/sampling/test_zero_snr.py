"""Zero terminal SNR and predictions of x_0 in every sampler, against the stock pipeline of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest

from dmp_cli.backbones import load_backbone
from dmp_cli.errors import ConfigError
from tests.backbones.pipelines import write_stock_pipeline

from .stock import NOISE, check_same, draw_ours, draw_stable, state_scheduler
from .test_stock_samplers import NAMED, _taken

ZERO: dict[str, Any] = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "clip_sample": False}
SAMPLE: dict[str, Any] = {"prediction_type": "sample", "clip_sample": False}
STEPS = 4


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    place = tmp_path_factory.mktemp("zero")
    pipe = write_stock_pipeline(place)
    pipe.set_progress_bar_config(disable=True)
    return place, pipe, load_backbone(str(place))


def drawn(stable: tuple[Path, Any, Any], sampler: str, told: dict[str, Any]) -> tuple[Any, Any]:
    """Our latents and the stock pipeline's, whose own scheduler is a DDIM with ``told``."""
    place, pipe, backbone = stable
    state_scheduler(place, backbone, diffusers.DDIMScheduler(**NOISE, **told))
    kind = NAMED.get(sampler, "DDIMScheduler")
    scheduler = getattr(diffusers, kind)(**NOISE, **_taken(kind, told))
    return draw_ours(backbone, sampler=sampler, steps=STEPS, guidance=3), draw_stable(
        pipe, scheduler, steps=STEPS, guidance=3
    )


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
@pytest.mark.parametrize("sampler", ["pipeline", "ddim", "ddpm", "dpm++", "euler", "euler-a", "unipc"])
def test_zero_snr(sampler: str, spacing: str, stable: tuple[Path, Any, Any]) -> None:
    ours, theirs = drawn(stable, sampler, {**ZERO, "timestep_spacing": spacing})
    check_same(ours, theirs)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("sampler", ["pipeline", "ddim", "ddpm", "dpm++", "euler", "unipc"])
def test_a_prediction_of_the_image(sampler: str, zero: bool, stable: tuple[Path, Any, Any]) -> None:
    told = {**SAMPLE, "timestep_spacing": "trailing", "rescale_betas_zero_snr": zero}
    ours, theirs = drawn(stable, sampler, told)
    check_same(ours, theirs)


def test_ddim_begins_at_the_last_timestep_where_nothing_is_stated(stable: tuple[Path, Any, Any]) -> None:
    place, pipe, backbone = stable
    state_scheduler(place, backbone, diffusers.DDIMScheduler(**NOISE, **ZERO))
    sampling = backbone.schedule.sampling.model_copy(update={"timestep_spacing": None})
    backbone.schedule = backbone.schedule.model_copy(update={"sampling": sampling})
    trailing = diffusers.DDIMScheduler(**NOISE, **ZERO, timestep_spacing="trailing")
    theirs = draw_stable(pipe, trailing, steps=STEPS, guidance=3)
    check_same(draw_ours(backbone, sampler="ddim", steps=STEPS, guidance=3), theirs)


@pytest.mark.parametrize(
    ("sampler", "told", "words"),
    [
        ("heun", ZERO, "HeunDiscreteScheduler of diffusers has no rescale_betas_zero_snr"),
        ("euler-a", SAMPLE, "diffusers cannot run euler-a so"),
    ],
)
def test_what_diffusers_cannot_do_is_refused(
    sampler: str, told: dict[str, Any], words: str, stable: tuple[Path, Any, Any]
) -> None:
    place, _, backbone = stable
    state_scheduler(place, backbone, diffusers.DDIMScheduler(**NOISE, **told))
    with pytest.raises(ConfigError, match=words):
        draw_ours(backbone, sampler=sampler, steps=STEPS)
