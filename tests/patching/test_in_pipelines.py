"""A patch inside a stock pipeline of diffusers, as people load and call it."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmp_cli import attach, load_backbone, load_patch, save_patch
from dmp_cli.patching.prompts import Patch
from tests.backbones.pipelines import write_stock_pipeline
from tests.builders import filled_patch


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*half precision.*")
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion with a patch beside it."""
    folder = tmp_path_factory.mktemp("sd")
    write_stock_pipeline(folder)
    save_patch(folder / "patch.safetensors", filled_patch(load_backbone(str(folder))))
    return folder


def load(folder: Path, **options: Any) -> tuple[Any, Patch]:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe, load_patch(folder / "patch.safetensors")


def draw(pipe: Any, *, seed: int = 0, **options: Any) -> np.ndarray:
    source = torch.Generator().manual_seed(seed)
    return pipe("a red fox", num_inference_steps=3, generator=source, output_type="np", **options).images[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_in_every_precision_it_works_and_switches_off(dtype: torch.dtype, folder: Path) -> None:
    pipe, patch = load(folder, torch_dtype=dtype)
    bare = draw(pipe)
    patched = attach(pipe.unet, patch)
    assert not np.array_equal(draw(pipe), bare)
    with patched.disabled():
        assert np.array_equal(draw(pipe), bare)
    patched.detach()
    assert np.array_equal(draw(pipe), bare)


def test_a_callback_may_change_the_strength_between_steps(folder: Path) -> None:
    pipe, patch = load(folder)
    bare = draw(pipe)
    patched = attach(pipe.unet, patch)
    full, seen = draw(pipe), []

    def only_the_first_step(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        seen.append(step)
        patched.strength = 0.0
        return values

    first = draw(pipe, callback_on_step_end=only_the_first_step)
    assert seen == [0, 1, 2]
    assert not np.array_equal(first, full)
    assert not np.array_equal(first, bare)
    assert np.array_equal(draw(pipe), bare)  # the strength stayed 0


def test_threads_draw_from_one_pipeline_s_network(folder: Path) -> None:
    """Each thread with a pipeline of its own around the same network, as servers do it."""
    from diffusers import StableDiffusionPipeline

    pipe, patch = load(folder)
    attach(pipe.unet, patch)
    expected = [draw(pipe, seed=seed) for seed in range(3)]
    found: dict[int, np.ndarray] = {}
    # A tokenizer keeps padding and truncation of its last call, so threads that share one mix them up, patch or not.
    tokenizers = [copy.deepcopy(pipe.tokenizer) for _ in expected]

    def work(seed: int) -> None:
        scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
        parts = {**pipe.components, "scheduler": scheduler, "tokenizer": tokenizers[seed]}
        own = StableDiffusionPipeline(**parts, requires_safety_checker=False)
        own.set_progress_bar_config(disable=True)
        found[seed] = draw(own, seed=seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, image in enumerate(expected):
        assert np.array_equal(found[seed], image)


def test_saving_a_patched_pipeline_saves_the_bare_network(folder: Path, tmp_path: Path) -> None:
    pipe, patch = load(folder)
    before = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
    attach(pipe.unet, patch)
    pipe.save_pretrained(tmp_path / "saved")
    again, _ = load(folder)
    again = type(again).from_pretrained(tmp_path / "saved")
    assert again.unet.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.unet.state_dict().items())
