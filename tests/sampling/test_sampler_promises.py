"""What holds for every sampler: an image is its own, whatever is drawn beside it; what cannot be run is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from pydantic import ValidationError

from dmp_cli.backbones import OwnSampling
from dmp_cli.backbones.own_sampling import _CALLS, _read
from dmp_cli.config import PipelineSampler, SampleConfig
from dmp_cli.errors import ConfigError
from dmp_cli.sampling.plan import Plan
from dmp_cli.sampling.sampler import denoise, resolve
from tests.backbones.pipelines import STABLE_DIFFUSION
from tests.builders import tiny_dit
from tests.zoo.schedulers import DDPM_LIKE

NEW = ("euler", "euler-a", "heun", "unipc", "pipeline")
SDE = {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}


def with_own(given: dict[str, Any]) -> Any:
    backbone = tiny_dit()
    backbone.own_sampling = _read(given, pipeline="DiTPipeline")
    return backbone


@pytest.mark.parametrize("sampler", NEW)
def test_an_image_is_its_own(sampler: Any) -> None:
    """Image 2 is the same in whichever chunk it is drawn, and another seed or index gives another one."""
    backbone = with_own(SDE)

    def draw(indices: range, **options: Any) -> torch.Tensor:
        config = resolve(SampleConfig(num_images=4, sampler=sampler, steps=5, classes=(1,), **options), backbone)
        plan = Plan(config)
        return denoise(backbone, indices, backbone=backbone, config=config, clips=False, plan=plan)

    alone, beside = draw(range(2, 3)), draw(range(1, 4))
    torch.testing.assert_close(beside[1:2], alone, rtol=1e-4, atol=1e-4)
    assert torch.equal(draw(range(1, 4)), beside)
    assert float((beside[0] - beside[1]).abs().max()) > 0.01
    assert float((draw(range(2, 3), seed=1) - alone).abs().max()) > 0.01


@pytest.mark.parametrize("sampler", ["euler-a", "pipeline"])
def test_noise_is_added_for_each_image(sampler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dmp_cli.runtime import randomness

    backbone, asked, real = with_own(SDE), [], randomness.torch_generator

    def spy(purpose: str, **place: int) -> torch.Generator:
        asked.append((place["seed"], place["step"], place["index"]))
        return real(purpose, **place)

    monkeypatch.setattr(randomness, "torch_generator", spy)
    config = resolve(SampleConfig(num_images=2, sampler=sampler, steps=3, seed=9), backbone)
    denoise(backbone, range(2), backbone=backbone, config=config, clips=False)
    assert asked == [(9, step, index) for step in range(3) for index in range(2)]


@pytest.mark.parametrize(
    ("sampler", "steps", "message"),
    [
        ("euler", 1001, "--steps 1001: euler takes at most 1000 over 1000 timesteps"),
        ("unipc", 1000, "--steps 1000: unipc takes at most 999 over 1000 timesteps"),
        ("euler", 1, "--steps 1: euler would start at timestep 0 of 1000"),
        ("pipeline", 2000, "--steps 2000: the pipeline's PNDMScheduler takes at most 1000"),
        (
            "pipeline",
            600,
            "--steps 600: the pipeline's PNDMScheduler in strides of 1 would start at timestep 600 of 1000",
        ),
        ("pipeline", 3, "--steps 3: the pipeline's PNDMScheduler takes at least 4"),
    ],
)
def test_steps_that_cannot_be_taken(sampler: Any, steps: int, message: str) -> None:
    backbone = with_own({"_class_name": "PNDMScheduler", **STABLE_DIFFUSION, "steps_offset": 1})
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}[^\n]*"):
        resolve(SampleConfig(sampler=sampler, steps=steps), backbone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "DPMSolverSDEScheduler"}, "DPMSolverSDEScheduler cannot be followed faithfully"),
        ({"_class_name": "os.system"}, "os.system cannot be followed faithfully"),
        ({"skip_prk_steps": "yes"}, "the config of its PNDMScheduler is not valid: skip_prk_steps 'yes'"),
        ({"steps_offset": -1}, "the config of its PNDMScheduler is not valid: steps_offset -1"),
        ({"timestep_spacing": "other"}, "the config of its PNDMScheduler is not valid: timestep_spacing 'other'"),
        ({"_class_name": "UniPCMultistepScheduler", "solver_type": "bh1"}, "cannot be run so: its numbers overflow"),
        (
            {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "use_beta_sigmas": True},
            "diffusers cannot run the pipeline's EulerDiscreteScheduler so: Only one of",
        ),
    ],
)
def test_a_scheduler_that_cannot_be_followed(changes: dict[str, Any], message: str) -> None:
    backbone = with_own({"_class_name": "PNDMScheduler", **STABLE_DIFFUSION, **changes})
    with pytest.raises(ConfigError) as caught:
        resolve(SampleConfig(sampler="pipeline", steps=20), backbone)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_without_a_pipeline_there_is_no_scheduler_of_one() -> None:
    with pytest.raises(ConfigError, match="--sampler pipeline: the weights come from no pipeline folder"):
        resolve(SampleConfig(sampler="pipeline"), tiny_dit())


def test_what_the_record_says() -> None:
    """All settings are in it, those of the class too, so that later versions of diffusers draw the same."""
    own = _read(DDPM_LIKE["PixArt-alpha/PixArt-XL-2-512x512"], pipeline="PixArtAlphaPipeline")
    assert own.in_words() == "DPMSolverMultistep, 20 steps, guidance 4.5"
    assert own.sampler is not None
    assert own.sampler.solver_order == 2
    assert own.sampler.final_sigmas_type == "zero"
    config = SampleConfig(sampler="pipeline", scheduler=own.sampler)
    assert SampleConfig.model_validate_json(config.model_dump_json()) == config
    assert "scheduler" not in SampleConfig().model_dump()  # records of earlier versions stay as they are
    with pytest.raises(ValidationError):
        PipelineSampler(kind="SomeScheduler")  # type: ignore[arg-type]
    assert OwnSampling("PNDMScheduler", None).in_words() == "PNDM"


@pytest.mark.parametrize("name", sorted(DDPM_LIKE))
def test_public_schedulers_are_followed(name: str) -> None:
    backbone = with_own(DDPM_LIKE[name])
    resolved = resolve(SampleConfig(sampler="pipeline", steps=50), backbone)
    assert resolved.scheduler is not None
    assert resolved.scheduler.kind == DDPM_LIKE[name]["_class_name"]


@pytest.mark.parametrize("name", sorted(_CALLS))
def test_the_defaults_of_stock_pipelines(name: str) -> None:
    import ast
    import inspect

    source = ast.parse(Path(inspect.getfile(getattr(diffusers, name))).read_text())
    call = next(node for node in ast.walk(source) if isinstance(node, ast.FunctionDef) and node.name == "__call__")
    names = [argument.arg for argument in call.args.args][-len(call.args.defaults) :]
    found = {
        key: ast.literal_eval(value)
        for key, value in zip(names, call.args.defaults, strict=True)
        if key in ("num_inference_steps", "guidance_scale")
    }
    assert (found["num_inference_steps"], found.get("guidance_scale")) == _CALLS[name]
