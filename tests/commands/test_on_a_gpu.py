"""Whole commands on a real CUDA device; skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dmp_cli.patching.attachment import attach
from tests.builders import call_of, filled_patch, tiny_dit, zero_patch

from .conftest import Run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

VARIANTS: list[dict[str, Any]] = [{}, {"experts": "lora"}, {"experts": "both"}, {"gate": "attention"}]
GPU = ("--device", "cuda")


@pytest.fixture(autouse=True)
def _exact_products() -> Any:
    """No TF32, so that float32 on the device is that of the CPU."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_fresh_patch_changes_no_bit_and_a_trained_one_acts_as_on_the_cpu(variant: Any, dtype: Any) -> None:
    backbone = tiny_dit()
    call = call_of(backbone)
    with torch.no_grad():
        patched = attach(backbone, filled_patch(backbone, **variant))
        for parameter in patched.patch.parameters():
            parameter.mul_(0.3)
        expected = patched(*call)
        patched.detach()
        backbone.to("cuda")
        call = tuple(part.to("cuda") for part in call)
        with torch.autocast("cuda", dtype=dtype or torch.float32, enabled=dtype is not None):
            before = backbone(*call)
            fresh = attach(backbone, zero_patch(backbone, **variant))
            assert torch.equal(fresh(*call), before)
            fresh.detach()
            patched.patch.to("cuda")
            found = attach(backbone, patched.patch)(*call).float().cpu()
    limit = 1e-4 if dtype is None else 0.05
    assert (found - expected).norm() <= limit * expected.norm()


@pytest.mark.parametrize("options", [[], ["--experts", "lora"], ["--method", "lora"], ["--method", "full"]], ids=str)
def test_training_resumes_bit_for_bit(options: list[str], run: Run, backbone: list[str], images: Path) -> None:
    how = ["train", *backbone, "--data", images, "--batch-size", 4, "--lr", 0.01, *options, *GPU, "-q"]
    run(*how, "--steps", 6, "-o", "straight")
    run(*how, "--steps", 2, "-o", "parts")
    run("train", "--resume", "-o", "parts", "--steps", 6, *GPU, "-q")
    files = [
        path.relative_to("straight") for path in Path("straight").rglob("*.safetensors") if "check" not in str(path)
    ]
    assert files
    for name in files:
        assert ("straight" / name).read_bytes() == ("parts" / name).read_bytes()


def test_what_is_learnt_is_that_of_the_cpu(run: Run, backbone: list[str], images: Path) -> None:
    how = ["train", *backbone, "--data", images, "--batch-size", 4, "--lr", 0.001, "--steps", 4, "-q"]
    for device in ("cpu", "cuda"):
        run(*how, "--device", device, "-o", device)
    ours, theirs = (load_file(f"{device}/patch.safetensors") for device in ("cuda", "cpu"))
    for name, value in theirs.items():
        assert (ours[name] - value).abs().max() <= 2e-3  # AdamW's first steps have the size of the rate for any slope


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("options", [[], ["--compile"], ["--gradient-checkpointing"]], ids=str)
def test_half_precision_compiled_and_recomputed(
    dtype: str, options: list[str], run: Run, backbone: list[str], images: Path
) -> None:
    how = ["train", *backbone, "--data", images, "--batch-size", 4, "--steps", 3, "--experts", "both", *GPU, "-q"]
    run(*how, "--dtype", dtype, *options, "-o", "out")
    assert all(value.isfinite().all() for value in load_file("out/patch.safetensors").values())


def test_samples_are_those_of_the_cpu(run: Run, patch: Path, backbone: list[str]) -> None:
    for device in ("cpu", "cuda"):
        run("sample", "--patch", patch, "-n", 6, "--steps", 5, "--device", device, "-o", device, "-q")
        run(
            "sample", *backbone, "--against", patch, "-n", 6, "--steps", 5, "--device", device, "-o", f"g{device}", "-q"
        )
    for index in range(6):
        for kind in ("", "g"):
            ours, theirs = (
                np.asarray(Image.open(f"{kind}{device}/{index:06d}.png")).astype(int) for device in ("cuda", "cpu")
            )
            assert np.abs(ours - theirs).max() <= 2


def test_a_real_lack_of_memory(run: Run, backbone: list[str], images: Path) -> None:
    """The batch that does not fit is named with one that does; --auto-micro-batch goes on with a smaller one."""
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + (192 << 20)) / total))
    try:
        how = ["train", *backbone, "--data", images, "--batch-size", 32768, "--method", "full", "--steps", 1, *GPU]
        refused = run(*how, "-o", "out", code=1)
        assert "memory" in refused.stderr
        assert "--micro-batch-size" in refused.stderr
        run(*how, "--auto-micro-batch", "-o", "small", "-q")
        assert Path("small/backbone.safetensors").exists()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
