"""The noise schedule of a diffusers folder: read from its scheduler, given as an option, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones import load_backbone
from dmp_cli.backbones.schedules import schedule_of
from dmp_cli.config import BackboneHints, SamplingRule, ScheduleConfig
from dmp_cli.diffusion import noise_betas
from dmp_cli.errors import CheckpointError
from dmp_cli.storage import Weights
from tests.backbones.pipelines import tiny_plain_unet, write_scheduler
from tests.zoo.schedulers import DDPM_LIKE, FLOWS, OTHER


def read(config: dict[str, Any], *, learns_sigma: bool = False) -> ScheduleConfig:
    weights = Weights({}, {}, None, Path("folder"), scheduler=json.loads(json.dumps(config)))
    return schedule_of(weights, BackboneHints(), family="unet", learns_sigma=learns_sigma)


def test_a_unet_without_a_scheduler_needs_the_option(tmp_path: Path) -> None:
    tiny_plain_unet().save_pretrained(tmp_path / "unet")
    with pytest.raises(CheckpointError, match="does not say its noise schedule"):
        load_backbone(str(tmp_path / "unet"))
    backbone = load_backbone(str(tmp_path / "unet"), schedule="scaled_linear")
    assert backbone.schedule == ScheduleConfig(kind="scaled_linear", beta_start=0.00085, beta_end=0.012)


@pytest.mark.parametrize("repository", DDPM_LIKE)
def test_the_noise_is_that_of_diffusers_own_loading(repository: str) -> None:
    import diffusers

    config = DDPM_LIKE[repository]
    theirs = getattr(diffusers, config["_class_name"]).from_config(config)
    ours = read(config)
    torch.testing.assert_close(noise_betas(ours).float(), theirs.betas, rtol=1e-5, atol=1e-8)
    assert ours.prediction == theirs.config["prediction_type"]


@pytest.mark.parametrize(
    ("name", "start"),
    [("DDPMScheduler", 1e-4), ("HeunDiscreteScheduler", 0.00085)],
)
def test_absent_fields_have_the_defaults_of_their_class(name: str, start: float) -> None:
    import diffusers

    ours = read({"_class_name": name})
    assert ours.beta_start == start
    torch.testing.assert_close(noise_betas(ours).float(), getattr(diffusers, name)().betas)


@pytest.mark.parametrize("repository", [*OTHER, *FLOWS])
def test_another_process_is_refused_by_its_name(tmp_path: Path, repository: str) -> None:
    tiny_plain_unet().save_pretrained(tmp_path / "unet")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps({**OTHER, **FLOWS}[repository]))
    (tmp_path / "model_index.json").write_text("{}")
    name = {**OTHER, **FLOWS}[repository]["_class_name"]
    with pytest.raises(CheckpointError, match=f"^the scheduler of {tmp_path} is a {name}: only the noise of a DDPM"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr with a prediction of epsilon: the last timestep"),
        ({"rescale_betas_zero_snr": "yes"}, "rescale_betas_zero_snr yes"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule sigmoid"),
        ({"beta_schedule": ["linear"]}, "beta_schedule"),
        ({"prediction_type": "flow_prediction"}, "prediction_type flow_prediction"),
        ({"predict_epsilon": False}, "predict_epsilon False"),
        ({"trained_betas": [0.1]}, "trained_betas"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True, "flow_shift": 3.0}, "use_flow_sigmas"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type continuous"),
        ({"_class_name": "DDIMScheduler", "snr_shift_scale": 3.0}, "snr_shift_scale 3.0"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned"}, "variance_type 'learned'"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, "that predicts no variance"),
        ({"num_train_timesteps": 1}, "num_timesteps 1"),
        ({"_class_name": None}, "no _class_name"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_named_with_its_value(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    tiny_plain_unet().save_pretrained(tmp_path / "unet")
    write_scheduler(tmp_path / "unet", **changes)
    with pytest.raises(CheckpointError, match=f"the scheduler of .*unet is not supported: .*{words}"):
        load_backbone(str(tmp_path / "unet"))


@pytest.mark.parametrize(
    ("repository", "rule"),
    [
        ("google/ddpm-cifar10-32", SamplingRule(variance_type="fixed_large", clip_sample=True)),
        ("stabilityai/stable-diffusion-2-1", SamplingRule(clip_sample=False, steps_offset=1, set_alpha_to_one=False)),
        ("facebook/DiT-XL-2-256", SamplingRule(clip_sample=False)),
        ("PixArt-alpha/PixArt-XL-2-512x512", SamplingRule(timestep_spacing="linspace")),
    ],
)
def test_what_a_scheduler_says_about_sampling(repository: str, rule: SamplingRule) -> None:
    assert read(DDPM_LIKE[repository]).sampling == rule


def test_fields_without_effect_change_no_record() -> None:
    config = {"_class_name": "DDPMScheduler", "clip_sample": False}
    same = {"clip_sample_range": 2.0, "thresholding": False, "sample_max_value": 3.0, "steps_offset": 0}
    assert read({**config, **same}) == read(config)
    assert read({"_class_name": "PNDMScheduler", "skip_prk_steps": True}).sampling is None


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_zero_terminal_snr_is_part_of_the_noise(prediction: str) -> None:
    import diffusers

    stated = {"_class_name": "DDIMScheduler", "prediction_type": prediction, "rescale_betas_zero_snr": True}
    found = read(stated)
    assert (found.zero_terminal_snr, found.prediction) == (True, prediction)
    theirs = diffusers.DDIMScheduler.from_config(stated).alphas_cumprod
    torch.testing.assert_close((1 - noise_betas(found)).cumprod(0).float(), theirs, rtol=1e-4, atol=1e-6)
    assert ScheduleConfig(**json.loads(found.model_dump_json())) == found
    assert "zero_terminal_snr" not in read({**stated, "rescale_betas_zero_snr": False}).model_dump()


def test_a_schedule_without_a_rule_is_written_as_it_always_was() -> None:
    plain = ScheduleConfig()
    assert set(plain.model_dump()) == {"kind", "num_timesteps", "beta_start", "beta_end", "prediction"}
    ruled = read(DDPM_LIKE["facebook/DiT-XL-2-256"])
    assert ruled.model_dump()["sampling"] == {"clip_sample": False}
    assert ScheduleConfig(**json.loads(ruled.model_dump_json())) == ruled
