"""A patch knows its backbone's weights in any precision, beside an adapter, and in a compiled model; no others."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dmp_cli import attach, load_backbone, load_patch, save_patch
from dmp_cli.backbones import Backbone, as_backbone
from dmp_cli.errors import PatchError
from dmp_cli.patching.identity import rounded_digests
from dmp_cli.patching.prompts import Patch
from tests.backbones.pipelines import tiny_plain_unet, tiny_unet, write_scheduler
from tests.builders import TOLD, filled_patch, tiny_dit, write_meta_checkpoint

HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*half precision.*")
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a tiny U-Net of pixels, as diffusers writes it."""
    tiny_plain_unet().save_pretrained(tmp_path / "unet")
    return write_scheduler(tmp_path / "unet")


@pytest.fixture
def patch(folder: Path, tmp_path: Path) -> Patch:
    """A patch of that U-Net, read from its file."""
    return written(load_backbone(str(folder)), tmp_path)


def written(backbone: Backbone, folder: Path) -> Patch:
    save_patch(folder / "patch.safetensors", filled_patch(backbone))
    return load_patch(folder / "patch.safetensors")


def without_rounded(patch: Patch) -> Patch:
    """As an earlier version wrote it."""
    assert patch.record is not None
    patch.record = patch.record.model_copy(update={"rounded": {}})
    return patch


def call(model: Any) -> torch.Tensor:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return model(x.to(model.dtype), torch.tensor([3, 900])).sample


@pytest.mark.parametrize("dtype", HALVES)
def test_a_pipeline_in_half_precision_has_the_same_backbone(dtype: torch.dtype, patch: Patch) -> None:
    model = tiny_plain_unet().to(dtype)
    bare = call(model)
    attach(model, patch)
    assert not torch.equal(call(model), bare)


@pytest.mark.parametrize("dtype", HALVES)
def test_patches_of_earlier_versions_ask_the_recorded_file(dtype: torch.dtype, patch: Patch, folder: Path) -> None:
    attach(tiny_plain_unet().to(dtype), without_rounded(patch)).detach()
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(PatchError, match="other weights"):
        attach(tiny_plain_unet().to(dtype), patch)


def test_a_backbone_of_two_precisions(patch: Patch) -> None:
    model = tiny_plain_unet().to(torch.bfloat16)
    model.time_embedding.float()
    model.time_embedding.load_state_dict(tiny_plain_unet().time_embedding.state_dict())  # as kept in float32
    attach(model, patch)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_other_weights_are_refused_in_every_precision(dtype: torch.dtype, patch: Patch) -> None:
    with pytest.raises(PatchError, match="other weights") as caught:
        attach(tiny_plain_unet(seed=1).to(dtype), patch)
    assert "--force-backbone" in str(caught.value)
    assert "--force-backbone" in str(caught.value)


def test_the_digests_are_those_of_the_rounded_weights(patch: Patch) -> None:
    assert patch.record is not None
    for name, dtype in {"bf16": torch.bfloat16, "fp16": torch.float16}.items():
        rounded = as_backbone(tiny_plain_unet().to(dtype).float())
        assert patch.record.rounded[name] == rounded_digests(rounded)[name]
        assert patch.record.rounded[name] != patch.record.backbone.digest


@pytest.mark.slow
def test_a_compiled_model_is_the_model_inside(patch: Patch) -> None:
    model = tiny_plain_unet()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        bare = compiled(torch.ones(1, 3, 8, 8), torch.tensor([5])).sample
        patched = attach(compiled, patch)
        expected = model(torch.ones(1, 3, 8, 8), torch.tensor([5])).sample
        assert not torch.equal(expected, bare)
        assert torch.allclose(compiled(torch.ones(1, 3, 8, 8), torch.tensor([5])).sample, expected, atol=1e-5)
        patched.detach()
        assert torch.allclose(compiled(torch.ones(1, 3, 8, 8), torch.tensor([5])).sample, bare, atol=1e-5)


def test_an_adapter_of_peft_leaves_the_base_weights_the_same(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = tiny_unet()
    model.save_pretrained(tmp_path / "unet")
    write_scheduler(tmp_path / "unet")
    patch = written_for_text(tmp_path)
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"]))
    attach(model, patch).detach()
    other = tiny_unet(seed=1)
    other.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"]))
    with pytest.raises(PatchError, match="other weights"):
        attach(other, patch)


def written_for_text(folder: Path) -> Patch:
    backbone = load_backbone(str(folder / "unet"))
    backbone.text_folder = None  # the captions play no part here
    return written(backbone, folder)


def test_weights_in_few_bits_are_taken_with_a_word(tmp_path: Path) -> None:
    backbone = load_backbone(str(write_meta_checkpoint(tmp_path / "tiny.pt", tiny_dit())), **TOLD)
    patch = written(backbone, tmp_path)
    few = tiny_dit()
    for block in few.blocks:
        weight = block.mlp.fc1.weight.detach()
        block.mlp.fc1.weight = torch.nn.Parameter((weight * 40).to(torch.int8), requires_grad=False)
    with pytest.warns(UserWarning, match="keeps weights as int8, which cannot be compared"):
        attach(few, patch)


def test_a_file_in_half_precision_is_loaded_as_what_it_is(tmp_path: Path) -> None:
    """Rounded weights that were loaded into float32 are the rounded backbone."""
    weights = tiny_dit().state_dict()
    patch = written(load_backbone(str(write_meta_checkpoint(tmp_path / "tiny.pt", tiny_dit())), **TOLD), tmp_path)
    save_file({name: tensor.bfloat16() for name, tensor in weights.items()}, tmp_path / "half.safetensors")
    attach(load_backbone(str(tmp_path / "half.safetensors"), **TOLD), patch)


def test_fp8_storage_is_taken_with_a_word_and_the_gate_computes(patch: Patch) -> None:
    model = tiny_plain_unet()
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    with torch.no_grad():
        bare = call(model)
        with pytest.warns(UserWarning, match="keeps weights as float8_e4m3fn"):
            patched = attach(model, patch)
        assert not torch.equal(call(model), bare)
        seen = []
        handle = patched.backbone.gate_sources["timestep"].register_forward_hook(lambda m, a, out: seen.append(out))
        weights = patched.gating(torch.tensor([3, 900])).weights
        call(model)
        handle.remove()
        assert torch.equal(seen[0], seen[1])  # what the gate reads is what a forward computes
        assert weights.dtype == torch.float32
        with patched.disabled():
            assert torch.equal(call(model), bare)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("first", ["patch", "offload"])
def test_an_offloaded_model(whole: bool, first: str, patch: Patch) -> None:
    """As pipelines' enable_model_cpu_offload and enable_sequential_cpu_offload do it, through accelerate."""
    accelerate = pytest.importorskip("accelerate")
    cpu = torch.device("cpu")

    def offload(model: Any) -> None:
        if whole:
            accelerate.cpu_offload_with_hook(model, cpu)
        else:
            accelerate.cpu_offload(model, cpu, offload_buffers=True)

    with torch.no_grad():
        plain = tiny_plain_unet()
        patched = attach(plain, patch)
        expected = call(plain)
        patched.detach()
        model = tiny_plain_unet()
        if first == "offload":
            offload(model)
        hidden = not whole and first == "offload"
        with (
            pytest.warns(UserWarning, match="offloaded and cannot be compared") if hidden else contextlib.nullcontext()
        ):
            attach(model, patch)
        if first == "patch":
            offload(model)
        x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 900])
        assert torch.equal(model(x, t).sample, expected)
