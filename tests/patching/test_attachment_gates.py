"""Gate weights that are computed once per timestep: outputs stay the same, and a change of the patch is noticed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dmp_cli.backbones import as_backbone
from dmp_cli.config import SampleConfig
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.prompts import Patch
from dmp_cli.patching.versions import PatchVersions
from dmp_cli.sampling.sampler import resolve, sample
from tests.backbones.pipelines import tiny_plain_unet
from tests.builders import call_of, filled_patch, tiny_dit
from tests.patching.counting import Graphs

VARIANTS: list[dict[str, Any]] = [{}, {"gate": "attention"}, {"selection": "hard"}, {"gate": "none"}, {"depth": 1}]


def at_one_timestep(backbone: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    x, timesteps, labels = call_of(backbone)
    return x, torch.full_like(timesteps, 321), labels


@pytest.mark.parametrize("variant", VARIANTS)
def test_kept_weights_equal_those_of_the_gate(variant: dict[str, Any]) -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone, **variant))
    call = at_one_timestep(backbone)
    expected = patched(*call)
    with patched.at(321):
        torch.testing.assert_close(patched(*call), expected, rtol=1e-5, atol=1e-5)
    with patched.at(7):
        other = patched(*call)
    assert torch.allclose(other, expected, rtol=1e-3, atol=1e-3) == (variant.get("gate") == "none")
    assert torch.equal(patched(*call), expected)


def test_on_feature_maps() -> None:
    backbone = as_backbone(tiny_plain_unet())
    patched = attach(backbone, filled_patch(backbone), strength=40)
    call = at_one_timestep(backbone)
    with patched.at(321):
        torch.testing.assert_close(patched(*call), patched(*call), rtol=1e-5, atol=1e-5)
        found = patched(*call)
    torch.testing.assert_close(found, patched(*call), rtol=1e-4, atol=1e-5)


def test_a_gate_that_reads_the_class_is_computed_each_time() -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone, gate_input="conditioning"))
    call = at_one_timestep(backbone)
    with patched.at(7):  # says nothing to it
        assert torch.equal(patched(*call), attach_again(patched)(*call))


def attach_again(patched: Any) -> Any:
    return attach(patched.detach(), patched.patch)


def test_kept_weights_are_computed_again_after_a_change() -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone))
    call = at_one_timestep(backbone)
    with patched.at(321):
        before = patched(*call)
    with torch.no_grad():
        patched.patch.gate.weight.mul_(3)
    with patched.at(321):
        after = patched(*call)
    assert not torch.allclose(before, after, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(after, patched(*call), rtol=1e-5, atol=1e-5)


def test_weights_kept_while_sampling_can_be_used_in_training() -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone))
    call = at_one_timestep(backbone)
    with torch.inference_mode(), patched.at(321):
        patched(*call)
    with patched.at(321):
        patched(*call).square().mean().backward()
    assert patched.patch.prompts[0].grad is not None


@pytest.mark.parametrize("against", [False, True])
def test_sampling_computes_the_gate_once_per_timestep(monkeypatch: pytest.MonkeyPatch, against: bool) -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone))
    asked: list[int] = []
    forward = Patch.forward
    monkeypatch.setattr(Patch, "forward", lambda self, *a, **k: asked.append(len(a[0])) or forward(self, *a, **k))
    options: dict[str, Any] = {"num_images": 6, "batch_size": 2, "steps": 5, "guidance": 1.5}
    config = resolve(SampleConfig(**options, against_scale=1.0 if against else None), backbone)
    versions = PatchVersions(patched, theirs=[*patched.patches]) if against else None
    denoiser = backbone if against else patched
    list(sample(denoiser, backbone=backbone, codec=PixelCodec(3), config=config, versions=versions))
    assert asked == [1] * 5


def test_compiled_sampling_is_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_dit(depth=2)
    patched = attach(backbone, filled_patch(backbone))
    graphs, compile = Graphs(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **how: compile(module, backend=graphs, fullgraph=True, **how))
    images = []
    for compiled in (True, False):
        options: dict[str, Any] = {"num_images": 4, "batch_size": 2, "steps": 4, "guidance": 1.5, "compile": compiled}
        config = resolve(SampleConfig(**options), backbone)
        chunks = sample(patched, backbone=backbone, codec=PixelCodec(3), config=config)
        images.append([image.pixels.tobytes() for chunk in chunks for image in chunk])
    assert graphs.count == 1
    assert images[0] == images[1]
