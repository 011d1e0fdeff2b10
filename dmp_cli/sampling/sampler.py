"""Sampling, from noise to images: a plan's images in fixed chunks of consecutive indices, by diffusers' schedulers.

The noise of an image at a step depends on (seed, place, step) alone; see ``plan``. A chunk is always computed whole,
even when only part of it is asked for. So the bytes of an image depend neither on interruptions nor on how many images
are asked for.

B images in a chunk, (C, H, W) the shape of what the backbone denoises.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones import Backbone, OwnSampling, compiled_around, compiled_blocks
from ..config import PipelineSampler, Prompt, SampleConfig
from ..data import to_uint8
from ..errors import ConfigError, DivergedError
from ..latents import Codec
from ..patching import PatchVersions, Versions
from ..runtime import randomness
from .flow import integrate
from .forward import GuidedForward, telling_steps
from .plan import Item, Plan, negative_problem
from .rectified import build_rectified, named_flow
from .scheduler import build_scheduler, check_steps
from .stock_schedulers import draws_noise, takes_variance
from .visited import levels_of, timesteps_of


@dataclass(frozen=True)
class Sample:
    """One finished image."""

    index: int
    label: int | str | None  # class or prompt; None for a backbone that takes neither
    pixels: np.ndarray  # uint8, (H, W, C)
    latent: np.ndarray | None = None  # float32, what was decoded to it; None: it was not asked for


def resolve(config: SampleConfig, backbone: Backbone, prompts: Sequence[Prompt] | None = None) -> SampleConfig:
    """``config`` with all that depends on the backbone filled in, and everything else checked against the backbone.

    ``prompts``: those of a long file, see :class:`Plan`; None: those of the config.

    Raises:
        ConfigError: unknown classes, missing or useless prompts, guidance without a null condition, or a number of
            steps that the sampler cannot take.
    """
    prompts = prompts or config.prompts or ()
    if backbone.takes_text and not prompts and config.plan is None:
        raise ConfigError(
            "this backbone reads text, and no prompt is given", hint="Give --prompt TEXT or --prompts FILE."
        )
    if prompts and not backbone.takes_text:
        raise ConfigError("--prompt and --prompts are for backbones that read text; this one does not")
    count = backbone.num_classes
    classes = config.classes or (tuple(range(count)) if count and config.plan is None else None)
    if classes and (not count or max(classes) >= count or min(classes) < 0):
        known = f"classes 0..{count - 1}" if count else "no classes"
        raise ConfigError(f"--classes {','.join(map(str, classes))}: this backbone knows {known}")
    guided = config.guidance != 1 or any(prompt.guidance not in (None, 1) for prompt in prompts)
    if guided and not backbone.has_null and backbone.embedded_guidance is None:
        raise ConfigError(
            f"--guidance {config.guidance:g} needs a null condition, which this backbone lacks",
            hint="Leave it out, or give --guidance 1.",
        )
    _check_negatives(config, backbone, prompts)
    for prompt in prompts:
        if prompt.negative is not None and (config.guidance if prompt.guidance is None else prompt.guidance) == 1:
            raise ConfigError(
                f"the negative prompt {prompt.negative!r} does nothing: guidance is off",
                hint="Give a --guidance other than 1, or --l in the file of prompts.",
            )
    kinds = len(classes or prompts)
    if config.balanced and kinds and config.num_images % kinds:
        raise ConfigError(
            f"--balanced: {config.num_images} images are not a multiple of {kinds}",
            hint=f"Give -n {(config.num_images // kinds + 1) * kinds}.",
        )
    if config.guidance_channels == "3" and backbone.sample_shape[0] < 3:
        raise ConfigError(f"--guidance-channels 3: this backbone has only {backbone.sample_shape[0]}")
    config = with_own_scheduler(config, backbone.own_sampling, flow=backbone.flow_sampler)
    check_steps(config, backbone.schedule)
    return config.model_copy(update={"classes": classes})


def _check_negatives(config: SampleConfig, backbone: Backbone, prompts: Sequence[Prompt]) -> None:
    """Raise ConfigError for negative prompts, or an interval of guidance, that the backbone cannot have."""
    problem = next((told for prompt in prompts if (told := negative_problem(prompt.negative, backbone))), "")
    if problem:
        raise ConfigError(problem, hint="Leave it out (--n).")
    if backbone.embedded_guidance is not None and config.guidance_interval != (0, 1):
        raise ConfigError("--guidance-interval: this backbone reads the scale of guidance itself, at every level")


def with_own_scheduler(
    config: SampleConfig, own: OwnSampling | None, *, flow: PipelineSampler | None = None
) -> SampleConfig:
    """``config`` with the scheduler of the pipeline filled in, where ``--sampler pipeline`` or a flow's asks for it.

    ``flow`` are the settings of a rectified flow.

    Raises:
        ConfigError: there is no pipeline, or its scheduler cannot be followed.
    """
    if config.sampler != "pipeline":
        return config.model_copy(update={"scheduler": named_flow(config.sampler, flow)})
    if own is not None and own.sampler is None:
        raise ConfigError(
            f"--sampler pipeline: {own.problem}",
            hint="Name a sampler instead, such as --sampler euler-a or --sampler dpm++, with --steps 50.",
        )
    return config.model_copy(update={"scheduler": config.scheduler if own is None else own.sampler})


def chunks(config: SampleConfig) -> list[range]:
    """The fixed chunks that cover the indices 0..n-1; the last chunk may reach beyond them."""
    size = config.batch_size
    return [range(start, start + size) for start in range(0, config.num_images, size)]


def sample(
    denoiser: nn.Module,
    *,
    backbone: Backbone,
    codec: Codec,
    config: SampleConfig,
    todo: list[range] | None = None,
    plan: Plan | None = None,
    versions: Versions | None = None,
    keep_latents: bool = False,
) -> Iterator[list[Sample]]:
    """Yield the images of each chunk of ``todo`` (None: of all chunks) whose index is below ``config.num_images``.

    ``denoiser`` is the patched backbone or the bare one; ``config`` must come from :func:`resolve`. Without a ``plan``
    the config says which image is which. With ``versions`` guidance leads away from their other version, as far as
    ``config.against_scale`` says.

    Samples have their latents with ``keep_latents`` alone.

    Raises:
        DivergedError: an image is not finite.
    """
    plan = plan or Plan(config)
    by_region = config.compile and (versions is None or isinstance(versions, PatchVersions))
    with compiled_blocks(backbone) if by_region else contextlib.nullcontext():
        call = compiled_around(denoiser, backbone) if config.compile else denoiser
        if versions is not None and config.compile:
            versions.compile()
        for indices in chunks(config) if todo is None else todo:
            how: dict[str, Any] = {"clips": codec.clips, "plan": plan, "call": call, "versions": versions}
            with telling_steps(config):
                latents = denoise(denoiser, indices, backbone=backbone, config=config, **how)
            yield _images_of(latents, indices, codec=codec, plan=plan, config=config, keep_latents=keep_latents)
            if backbone.takes_text:
                backbone.captions.forget()


def _images_of(
    latents: Tensor, indices: range, *, codec: Codec, plan: Plan, config: SampleConfig, keep_latents: bool
) -> list[Sample]:
    """Decode a chunk; the images beyond the last one are left out."""
    decoded = codec.decode(latents)
    _check_finite(decoded, indices)
    images = to_uint8(decoded)
    kept = latents.float().cpu().numpy() if keep_latents else [None] * len(images)
    return [
        Sample(index, _label_of(plan.item(index)), image, latent)
        for index, image, latent in zip(indices, images, kept, strict=True)
        if index < config.num_images
    ]


def _label_of(item: Item) -> int | str | None:
    return item.label if item.prompt is None else item.prompt


@torch.inference_mode()
def denoise(
    denoiser: nn.Module,
    indices: range,
    *,
    backbone: Backbone,
    config: SampleConfig,
    clips: bool,
    plan: Plan | None = None,
    call: Callable[..., Tensor] | None = None,
    versions: Versions | None = None,
) -> Tensor:
    """Denoise the images ``indices`` from pure noise to x_0, (B, C, H, W).

    ``clips``: whether the guess of x_0 is clipped to [-1, 1] at every step. ``call`` is the compiled denoiser; None
    calls ``denoiser`` itself.
    """
    plan = plan or Plan(config)
    items = [plan.item(index) for index in indices]
    network = versions or (denoiser if call is None else call)
    forward = GuidedForward(denoiser, network, items, backbone=backbone, config=config)
    starts = [randomness.normal("start", backbone.sample_shape, seed=item.seed, indices=[item.place]) for item in items]
    x = torch.cat(starts).to(backbone.device)
    if backbone.schedule.flow == "rectified":
        return _by_rectified(x, forward, config=config, backbone=backbone)
    if backbone.schedule.flow is not None:

        def draw(step: int) -> Tensor:
            each: list[dict[str, Any]] = [{"seed": item.seed, "step": step, "indices": [item.place]} for item in items]
            return torch.cat([randomness.normal("sample", x.shape[1:], **one) for one in each]).to(x.device)

        return integrate(x, predict=forward.predict, draw=draw, config=config, schedule=backbone.schedule)
    scheduler = build_scheduler(backbone.schedule, config, learns_sigma=backbone.learns_sigma, clips=clips)
    x = x * scheduler.init_noise_sigma
    for step, (timestep, level) in enumerate(zip(scheduler.timesteps, timesteps_of(scheduler), strict=True)):
        output = forward.predict(scheduler.scale_model_input(x, timestep), level)
        extra: dict[str, Any] = {}
        if draws_noise(scheduler):
            extra["generator"] = [
                randomness.torch_generator("sample", seed=item.seed, step=step, index=item.place) for item in items
            ]
        if not takes_variance(scheduler):
            output = output[:, : x.shape[1]]
        if config.sampler == "ddim":  # as in the original sampler, eps is computed again from the clipped x_0
            extra["use_clipped_model_output"] = scheduler.config.clip_sample
        x = scheduler.step(output, timestep, x, **extra).prev_sample
    return x


def _by_rectified(x: Tensor, forward: GuidedForward, *, config: SampleConfig, backbone: Backbone) -> Tensor:
    """x_0 (B, C, H, W) by a scheduler of a rectified flow, from noise ``x``."""
    scheduler = build_rectified(config, backbone)
    for timestep, level in zip(scheduler.timesteps, levels_of(scheduler), strict=True):
        velocity = forward.predict(x, level)[:, : x.shape[1]]
        x = scheduler.step(velocity.float(), timestep, x).prev_sample
    return x


def _check_finite(images: Tensor, indices: range) -> None:
    broken = [i for i, image in zip(indices, images, strict=True) if not image.isfinite().all()]
    if broken:
        raise DivergedError(
            f"image {broken[0]} is not finite: the denoiser overflowed",
            hint="Sample with --dtype fp32 or bf16, with less --guidance or --against-scale, or with another patch.",
        )
