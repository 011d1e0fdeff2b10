"""Rows of ``benchmarks.gpu`` on networks that read text: Stable Diffusion 1.5 and 3 medium, with random weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch

from dmp_cli.backbones import Backbone, build_backbone, compiled_around, compiled_blocks

from .gpu_rows import Place, patched_of, seconds_of, told
from .setting import autocast_of
from .shaped import call_of, narrow_unet, tiny_sd3, with_captions

KINDS = {"U-Net of SD 1.5's shape": ("sd-v1.5", narrow_unet), "SD3 of medium's shape": ("sd3-medium", tiny_sd3)}
METHODS = ("dmp", "full", "bare forward")
_SIDE = 64  # of the latents, for images of 512 pixels


def built(place: Place, kind: str) -> Backbone:
    """The network of one kind, of its published sizes, or tiny; frozen."""
    name, build_tiny = KINDS[kind]
    if place.dry:
        backbone = build_tiny(quick=True)
        backbone.resize(8)
    else:
        backbone = with_captions(build_backbone(name, device=str(place.device), input_size=_SIDE))
    return backbone.to(place.device).requires_grad_(False)


def shaped_step(place: Place, kind: str, batch: int, method: str, *, compile: bool = False) -> str:
    """Forward and backward: of a patch, of all weights; or the forward of the bare network."""
    backbone = built(place, kind)
    weights = list(backbone.requires_grad_(method == "full").parameters())
    call = tuple(part.to(place.device) for part in call_of(backbone, batch))
    network: Callable[..., torch.Tensor] = backbone
    if method == "dmp":
        network = patched = patched_of(backbone, image_size=8 * backbone.sample_shape[-1])
        weights = list(patched.patch.parameters())
    with compiled_blocks(backbone) if compile else contextlib.nullcontext():
        called = compiled_around(network, backbone) if compile else network

        def step() -> None:
            with torch.set_grad_enabled(method != "bare forward"), autocast_of(place.setting("", batch)):
                loss = called(*call).float().square().mean()
            if method != "bare forward":
                torch.autograd.grad(loss, weights, allow_unused=True)

        return told(step, place, batch=batch)


def shaped_sampling(place: Place, kind: str, batch: int) -> str:
    """One denoising step's network, patched over bare."""
    backbone = built(place, kind)
    patched = patched_of(backbone, noise=0.02, image_size=8 * backbone.sample_shape[-1])
    call = tuple(part.to(place.device) for part in call_of(backbone, batch))

    def forward() -> None:
        with torch.inference_mode(), autocast_of(place.setting("", batch)):
            patched(*call)

    with_patch = seconds_of(forward, place)
    with patched.disabled():
        bare = seconds_of(forward, place)
    return f"{with_patch / bare:.4f} ({1000 * with_patch:.1f} ms)"
