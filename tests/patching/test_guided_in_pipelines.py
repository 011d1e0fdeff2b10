"""``guide`` inside stock pipelines: their images against the slow formula, from two models patched apart."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dmp_cli import attach, guide, load_backbone, save_patch
from dmp_cli.backbones import as_backbone
from dmp_cli.patching.prompts import Patch
from tests.backbones.pipelines import tiny_pixart, tiny_vae, write_stock_pipeline
from tests.builders import diffusers_dit, filled_patch

G, W = 3.0, 0.75


def patches_of(model: Any, **variant: Any) -> tuple[Patch, Patch]:
    """Two patches for a model: small enough that a whole image stays of the same size."""
    found = []
    for seed in (0, 1):
        patch = filled_patch(as_backbone(model), seed=seed, **variant)
        with torch.no_grad():
            for prompts in patch.prompts:
                prompts.mul_(2)
        found.append(patch)
    return found[0], found[1]


class Slow:
    """The formula by single forwards of models of their own, in place of a denoiser's forward.

    It answers a call with halves [null, c] or [c, null] by halves that a pipeline turns into
    a_c + W (a_c - b_c) + (g - 1) (a_c - a_0): a_0 and a_c, plus W (a_c - b_c) on both.
    """

    def __init__(self, model: Any, *, ours: Patch | None, theirs: Patch | None, null_first: bool) -> None:
        self.a, self.b, self.null_first = copy.deepcopy(model), copy.deepcopy(model), null_first
        for own, patch in ((self.a, ours), (self.b, theirs)):
            if patch is not None:
                attach(own, patch)

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        half = len(x) // 2
        conditional = slice(half, None) if self.null_first else slice(0, half)
        answers = []
        for model in (self.a, self.b):
            rows = []
            for row in range(len(x)):
                pick = functools.partial(_pick, rows=slice(row, row + 1), count=len(x))
                given = {name: pick(value) for name, value in kwargs.items()} | {"return_dict": False}
                rows.append(model(pick(x), *map(pick, args), **given)[0])
            answers.append(torch.cat(rows))
        a, b = answers
        more = W * (a[conditional] - b[conditional])
        more[:, x.shape[1] :] = 0
        whole = a + torch.cat([more, more])
        return (whole,) if kwargs.get("return_dict") is False else SimpleNamespace(sample=whole)


def _pick(value: Any, *, rows: slice, count: int) -> Any:
    return value[rows] if isinstance(value, Tensor) and value.dim() and len(value) == count else value


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd")
    write_stock_pipeline(folder)
    return folder


def text_pipeline(folder: Path) -> tuple[Any, str, Callable[..., Tensor]]:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder)

    def draw(**options: Any) -> Tensor:
        source = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        how = {"num_inference_steps": 3, "guidance_scale": G, "output_type": "latent", **options}
        return pipe(["a red fox", "two cats"], negative_prompt=["a dog", ""], generator=source, **how).images

    return pipe, "unet", draw


def class_pipeline(folder: Path) -> tuple[Any, str, Callable[..., Tensor]]:
    from diffusers import DDIMScheduler, DiTPipeline

    model = diffusers_dit(in_channels=4, out_channels=8, num_embeds_ada_norm=1000, num_layers=2)
    pipe = DiTPipeline(transformer=model, vae=tiny_vae(), scheduler=DDIMScheduler(clip_sample=False))

    def draw(**options: Any) -> Tensor:
        source = torch.Generator().manual_seed(0)
        how = {"num_inference_steps": 3, "guidance_scale": G, "output_type": "pt", **options}
        return torch.as_tensor(pipe(class_labels=[7, 2], generator=source, **how).images)  # diffusers 0.36 gives arrays

    return pipe, "transformer", draw


def pixart_pipeline(folder: Path) -> tuple[Any, str, Callable[..., Tensor]]:
    from diffusers import DDIMScheduler, PixArtAlphaPipeline

    parts = {"vae": tiny_vae(), "scheduler": DDIMScheduler(clip_sample=False)}
    pipe = PixArtAlphaPipeline(transformer=tiny_pixart(), tokenizer=None, text_encoder=None, **parts)
    text, mask = torch.randn(4, 5, 32, generator=torch.Generator().manual_seed(1)), torch.ones(2, 5)
    given = {"prompt_embeds": text[:2], "negative_prompt_embeds": text[2:], "prompt_attention_mask": mask}
    given |= {"negative_prompt_attention_mask": mask, "height": 16, "width": 16, "use_resolution_binning": False}

    def draw(**options: Any) -> Tensor:
        source = torch.Generator().manual_seed(0)
        how = {"num_inference_steps": 3, "guidance_scale": G, "output_type": "latent", "negative_prompt": None}
        return pipe(generator=source, **given, **how, **options).images

    return pipe, "transformer", draw


PIPELINES = {"text": text_pipeline, "class": class_pipeline, "pixart": pixart_pipeline}
KINDS = {"against": (None, 1), "patch": (0, None), "both": (0, 1)}  # which of two patches is ours, and theirs


@pytest.fixture(params=PIPELINES)
def drawn(request: pytest.FixtureRequest, text_folder: Path) -> tuple[Any, str, Callable[..., Tensor]]:
    pipe, name, draw = PIPELINES[request.param](text_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe, name, draw


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_a_stock_pipeline_are_those_of_the_formula(kind: str, drawn: Any) -> None:
    pipe, name, draw = drawn
    model = getattr(pipe, name)
    patches = patches_of(model)
    ours, theirs = (None if index is None else patches[index] for index in KINDS[kind])
    bare, null_first = draw(), not hasattr(pipe, "labels")  # class names are what a DiTPipeline has
    model.forward = Slow(model, ours=ours, theirs=theirs, null_first=null_first)
    expected = draw()
    del model.forward
    with guide(model, against=theirs, patch=ours, scale=W) as guidance:
        found = draw()
        guidance.scale = 0
        alone = draw()
    assert (found - expected).abs().max() <= 1e-6 * max(1, expected.abs().max())
    assert torch.equal(draw(), bare)
    if ours is None:
        assert torch.equal(alone, bare)
    else:
        patched = attach(model, ours)
        assert torch.equal(alone, draw())
        patched.detach()
    assert (expected - alone).abs().max() > 1e-3


def test_the_example_of_the_docs(text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "guidance.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stable-diffusion").symlink_to(text_folder)
    save_patch(Path("negative.safetensors"), filled_patch(load_backbone("stable-diffusion")))
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(code, names)
    torch.manual_seed(0)
    bare = names["pipe"]("a red fox", num_inference_steps=20).images[0]
    assert names["image"].tobytes() != bare.tobytes()
    assert not any(module._forward_hooks for module in names["pipe"].unet.modules())
