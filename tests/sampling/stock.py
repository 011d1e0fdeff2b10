"""Latents drawn by the stock pipelines of diffusers from the start and the noise that ``dmp sample`` draws from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch

from dmp_cli.backbones import as_backbone
from dmp_cli.backbones.own_sampling import own_sampling_of
from dmp_cli.backbones.schedules import schedule_of
from dmp_cli.config import BackboneHints, Prompt, SampleConfig
from dmp_cli.runtime import randomness
from dmp_cli.sampling.sampler import denoise, resolve
from dmp_cli.storage import Weights, peek_pipeline
from tests.backbones.pipelines import tiny_pixart, tiny_vae
from tests.builders import diffusers_dit

PROMPTS = (Prompt(text="a red fox"), Prompt(text="two cats", seed=5))
SOURCES = ((0, 0), (5, 0))  # (seed, place) of these images
NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}  # of Stable Diffusion


def state_scheduler(folder: Path, backbone: Any, scheduler: Any) -> None:
    """Make ``backbone`` as it would be loaded from ``folder``, where ``scheduler`` is now the pipeline's."""
    scheduler.save_pretrained(folder / "scheduler")
    found = peek_pipeline(folder)
    assert found is not None
    weights = Weights({}, {}, None, folder, scheduler=found[0], pipeline=folder)
    backbone.schedule = schedule_of(weights, BackboneHints(), family=backbone.family, learns_sigma=True)
    backbone.own_sampling = own_sampling_of(weights)


def reseed(step: int, sources: list[torch.Generator]) -> None:
    """Set each image's generator to that of its noise at ``step``."""
    for source, (seed, place) in zip(sources, SOURCES, strict=True):
        source.set_state(randomness.torch_generator("sample", seed=seed, step=step, index=place).get_state())


def starts(shape: tuple[int, ...], sources: tuple[tuple[int, int], ...] = SOURCES) -> torch.Tensor:
    return torch.cat([randomness.normal("start", shape, seed=seed, indices=[place]) for seed, place in sources])


def draw_stable(pipe: Any, scheduler: Any, *, steps: int, guidance: float) -> torch.Tensor:
    """Latents of a StableDiffusionPipeline."""
    pipe.scheduler, sources = scheduler, [torch.Generator(), torch.Generator()]
    reseed(0, sources)

    def at_end(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        reseed(step + 1, sources)
        return {}

    told: dict[str, Any] = {"latents": starts((4, 16, 16)), "generator": sources, "output_type": "latent"}
    told |= {"num_inference_steps": steps, "guidance_scale": guidance, "callback_on_step_end": at_end}
    found: torch.Tensor = pipe([prompt.text for prompt in PROMPTS], **told).images
    return found


def write_pixart_pipeline(folder: Path, scheduler: Any) -> Any:
    """A whole PixArtAlphaPipeline with tiny random parts, saved in ``folder``."""
    from transformers import AutoTokenizer, T5EncoderModel

    from tests.backbones.text_encoders import write_t5

    write_t5(folder)
    pipe = diffusers.PixArtAlphaPipeline(
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=T5EncoderModel.from_pretrained(folder / "text_encoder"),
        vae=tiny_vae(),
        transformer=tiny_pixart(),
        scheduler=scheduler,
    )
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw_pixart(pipe: Any, scheduler: Any, *, steps: int, guidance: float) -> torch.Tensor:
    """Latents of a PixArtAlphaPipeline. Its callback does not come at every call of a scheduler of second order."""
    pipe.scheduler, sources = scheduler, [torch.Generator(), torch.Generator()]
    reseed(0, sources)

    def at_end(step: int, timestep: Any, latents: Any) -> None:
        reseed(step + 1, sources)

    told: dict[str, Any] = {"latents": starts((4, 8, 8)), "generator": sources, "output_type": "latent"}
    told |= {"num_inference_steps": steps, "guidance_scale": guidance, "callback": at_end}
    told |= {"height": 16, "width": 16, "use_resolution_binning": False, "clean_caption": False}
    found: torch.Tensor = pipe([prompt.text for prompt in PROMPTS], **told).images
    return found


def stock_dit() -> Any:
    """A DiT of diffusers with as many classes as DiTPipeline's null class takes for granted."""
    return as_backbone(diffusers_dit(in_channels=4, out_channels=8, num_embeds_ada_norm=1000))


def draw_dit(backbone: Any, scheduler: Any, *, steps: int, guidance: float, monkeypatch: Any) -> torch.Tensor:
    """Latents of a DiTPipeline for the classes 3 and 7."""
    from diffusers.pipelines.dit import pipeline_dit

    vae, seen = tiny_vae(), []
    pipe = diffusers.DiTPipeline(transformer=backbone.model, vae=vae, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    start = starts((4, 8, 8), ((0, 0), (0, 1)))
    monkeypatch.setattr(pipeline_dit, "randn_tensor", lambda **given: start)
    decode = vae.decode
    monkeypatch.setattr(vae, "decode", lambda latents: seen.append(latents) or decode(latents))
    pipe([3, 7], num_inference_steps=steps, guidance_scale=guidance)
    found: torch.Tensor = seen[0] * vae.config.scaling_factor
    return found


def draw_ours(backbone: Any, denoiser: Any = None, **options: Any) -> torch.Tensor:
    """Our latents of the same two images."""
    images = {"prompts": PROMPTS} if backbone.takes_text else {"classes": (3, 7)}
    config = resolve(SampleConfig(num_images=2, batch_size=2, **images, **options), backbone)
    return denoise(denoiser or backbone, range(2), backbone=backbone, config=config, clips=False)


def check_same(ours: torch.Tensor, theirs: torch.Tensor, *, within: float = 1e-5) -> None:
    """Equal, relative to the largest latent."""
    assert theirs.isfinite().all()
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < within
