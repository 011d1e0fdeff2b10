"""A patch on every family: it changes nothing at first, learns alone, is a file, and goes to no other family."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones import Backbone
from dmp_cli.config import CodecRecord, PatchConfig
from dmp_cli.diffusion import make_process
from dmp_cli.errors import ConfigError, PatchError
from dmp_cli.patching import attach, create_patch, load_patch, save_patch
from dmp_cli.patching.calls import Call, Signature
from tests.builders import filled_patch, tiny_dit

from .cases import Case
from .shown import shows


def draws(case: Case, backbone: Backbone, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two samples, their levels, and their conditions."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(2, *backbone.sample_shape, generator=source)
    levels = make_process(backbone.schedule).levels(torch.tensor([0.3, 0.8], dtype=torch.float64))
    return x, levels, case.conditions(backbone)


def fresh(backbone: Backbone, **variant: Any) -> Any:
    """A patch as it is created."""
    return create_patch(backbone, PatchConfig(**variant), codec=CodecRecord(), image_size=64)


@shows("prompts", lambda case: case.blocks)
def test_attached_it_changes_nothing(case: Case, backbone: Backbone) -> None:
    x, levels, condition = draws(case, backbone)
    with torch.no_grad():
        bare = backbone(x, levels, condition)
        patch = fresh(backbone)
        patched = attach(backbone, patch)
        assert torch.equal(patched(x, levels, condition), bare)
        before = None
        for block in range(len(patch.prompts)):  # each block's prompts reach the prediction
            patch.prompts[block].fill_(0.5)
            now = patched(x, levels, condition)
            assert before is None or not torch.equal(now, before)
            assert not torch.equal(now, bare)
            before = now
        patched.detach()
        assert torch.equal(backbone(x, levels, condition), bare)


@pytest.mark.slow
@shows("training", lambda case: "loss falls")
def test_only_the_patch_learns_one_image(case: Case, backbone: Backbone) -> None:
    torch.manual_seed(0)
    patch = fresh(backbone)
    patched, process = attach(backbone, patch), make_process(backbone.schedule)
    frozen = {name: value.clone() for name, value in backbone.state_dict().items()}
    x0 = torch.randn(1, *backbone.sample_shape).repeat(4, 1, 1, 1)
    condition = case.conditions(backbone, ("a red fox",)).repeat(4)
    levels = process.levels(torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64))
    noise = torch.randn(x0.shape)

    def loss() -> torch.Tensor:
        xt = process.add_noise(x0, noise=noise, timesteps=levels)
        return process.loss(patched(xt, levels, condition), x0=x0, xt=xt, noise=noise, timesteps=levels).mse.mean()

    optimizer = torch.optim.AdamW(patch.parameters(), lr=0.05)
    first = float(loss())
    for step in range(200):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        if step == 0:
            assert all(parameter.grad is None for parameter in backbone.parameters() if parameter.requires_grad)
            assert any(bool(p.grad.abs().max() > 0) for p in patch.prompts.parameters() if p.grad is not None)
        optimizer.step()
        if float(value) < 0.99 * first:
            break
    assert float(loss()) < 0.99 * first
    assert all(torch.equal(value, frozen[name]) for name, value in backbone.state_dict().items())


@shows("training", lambda case: "gate reads levels")
def test_the_gate_reads_the_backbones_own_embedding(case: Case, backbone: Backbone) -> None:
    x, levels, _ = draws(case, backbone)
    condition = case.conditions(backbone, ("a red fox", "two cats"))  # of one length: one forward
    read = []
    source = backbone.gate_sources["timestep"]
    handle = source.register_forward_hook(lambda module, args, output: read.append(output.detach()))
    with torch.no_grad():
        backbone(x, levels, condition)
        handle.remove()
        assert len(read) == 1
        torch.testing.assert_close(backbone.gate_vector(levels), read[0], rtol=1e-6, atol=1e-6)
        assert read[0].shape == (2, backbone.gate_width)
        assert not torch.equal(read[0][0], read[0][1])


def test_levels_are_told_from_a_pipeline_s_call(case: Case, backbone: Backbone) -> None:
    x, levels, _ = draws(case, backbone)
    signature = Signature(backbone.core)
    seen: list[Call] = []
    core = backbone.core
    handle = core.register_forward_pre_hook(lambda m, args, kwargs: seen.append(Call(args, kwargs)), with_kwargs=True)
    with torch.no_grad():
        backbone(x, levels, case.conditions(backbone, ("a red fox", "two cats")))
    handle.remove()
    (call,) = seen
    given, latents = signature.read(signature.timesteps, call), signature.read(signature.latents, call)
    torch.testing.assert_close(backbone.levels_of(given, latents).to(levels), levels, rtol=1e-4, atol=1e-4)


@shows("patch file", lambda case: "same bytes")
def test_a_file_gives_the_same_patch_and_fits_no_other_family(case: Case, backbone: Backbone, tmp_path: Path) -> None:
    x, levels, condition = draws(case, backbone)
    patch = fresh(backbone)
    for number, parameter in enumerate(patch.parameters()):
        parameter.data.normal_(generator=torch.Generator().manual_seed(number)).mul_(0.2)
    save_patch(tmp_path / "a.safetensors", patch)
    again = load_patch(tmp_path / "a.safetensors")
    save_patch(tmp_path / "b.safetensors", again)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    with torch.no_grad():
        expected = attach(copy.copy(backbone), patch)(x, levels, condition)
        patched = attach(backbone, again, name="again", strength=0)
        assert torch.equal(patched(x, levels, condition), expected)
    other = tiny_dit(depth=1, hidden_size=24)
    with pytest.raises(PatchError, match="belongs to another backbone"):
        attach(other, load_patch(tmp_path / "a.safetensors"))


@shows("prepend", lambda case: "yes" if case.prepends else "refused")
def test_prepended_prompts(case: Case, backbone: Backbone) -> None:
    variant: dict[str, Any] = {"position": "prepend", "num_prompts": 3}
    if not case.prepends:
        with pytest.raises(ConfigError, match="--position prepend"):
            fresh(backbone, **variant)
        return
    x, levels, condition = draws(case, backbone)
    with torch.no_grad():
        bare = backbone(x, levels, condition)
        patch = filled_patch(backbone, **variant)
        patched = attach(backbone, patch)
        found = patched(x, levels, condition)
        assert found.shape == bare.shape
        assert not torch.allclose(found, bare, atol=1e-4)
        patched.detach()
        assert torch.equal(backbone(x, levels, condition), bare)
