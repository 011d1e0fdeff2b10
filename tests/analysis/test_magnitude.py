"""The size of a patch's mixture, on tokens and on feature maps, against norms calculated by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dmp_cli.analysis.magnitude import encode_some, measure_added
from dmp_cli.data.folder import find_images
from dmp_cli.diffusion.schedule import Schedule
from dmp_cli.errors import DataError, PatchError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.patching.attachment import attach
from dmp_cli.runtime.randomness import normal
from tests.backbones.pipelines import tiny_plain_unet
from tests.builders import filled_patch, tiny_dit, write_images

torch.set_num_threads(1)


def test_the_first_block_by_hand() -> None:
    backbone = tiny_dit()
    patch = filled_patch(backbone)
    patched = attach(backbone, patch, strength=0.5)
    x0, condition = torch.rand(3, *backbone.sample_shape), torch.tensor([0, 1, 2])
    found = measure_added(patched, x0, condition=condition, timesteps=[0, 500], seed=4)
    noise = normal("added", backbone.sample_shape, seed=4, indices=[0, 1, 2])
    for row, timestep in enumerate((0, 500)):
        at = torch.full((3,), timestep)
        xt = Schedule(backbone.schedule).add_noise(x0, noise=noise, timesteps=at)
        with torch.no_grad(), patched.disabled():
            hidden = backbone.x_embedder(xt) + backbone.pos_embed
            weights = patch(backbone.gate_vector(at)).weights[:, 0]  # (B, N)
        mixture = (0.5 * weights[:, :, None] * patch.prompts[0]).detach()  # (B, N, D)
        ratios = mixture.flatten(1).norm(dim=1) / hidden.flatten(1).norm(dim=1)
        assert found.ratio[row, 0] == pytest.approx(float(ratios.mean()), rel=1e-5)
        assert found.added[row, 0] == pytest.approx(float(mixture.flatten(1).norm(dim=1).mean()), rel=1e-5)
    assert found.ratio.shape == (2, len(patch.prompts))
    assert not any(block.module._forward_pre_hooks.get(-1) for block in backbone.list_blocks())


def test_a_zero_patch_adds_nothing_and_outputs_stay_as_they_are() -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone))
    x, at, label = torch.rand(2, *backbone.sample_shape), torch.tensor([3, 4]), torch.tensor([0, 1])
    with torch.no_grad():
        before = patched(x, at, label)
        measure_added(patched, x, condition=label, timesteps=[7], seed=0)
        assert torch.equal(patched(x, at, label), before)
        for prompts in patched.patch.prompts:
            prompts.zero_()
        assert not measure_added(patched, x, condition=label, timesteps=[7], seed=0).added.any()


def test_feature_maps() -> None:
    from dmp_cli.backbones.registry import as_backbone

    backbone = as_backbone(tiny_plain_unet())
    patched = attach(backbone, filled_patch(backbone))
    x0 = torch.rand(2, *backbone.sample_shape)
    found = measure_added(patched, x0, condition=None, timesteps=[10], seed=0)
    assert found.ratio.shape == (1, len(patched.patch.prompts))
    assert (found.ratio > 0).all()


def test_images_are_spread_over_the_data_set_and_keep_their_classes(tmp_path: Path) -> None:
    backbone = tiny_dit()
    images = find_images(write_images(tmp_path / "images", count=8, size=8, classes=4))
    x0, condition = encode_some(images, backbone=backbone, codec=PixelCodec(3), count=4, seed=0)
    assert x0.shape == (4, *backbone.sample_shape)
    assert condition is not None
    assert condition.tolist() == images.labels[[0, 2, 5, 7]].tolist()
    flat = find_images(write_images(tmp_path / "flat", count=3, size=8, classes=0))
    _, null = encode_some(flat, backbone=backbone, codec=PixelCodec(3), count=9, seed=0)
    assert null is not None
    assert torch.equal(null, backbone.null_condition(3))
    many = find_images(write_images(tmp_path / "many", count=12, size=8, classes=6))
    with pytest.raises(DataError, match="6 classes, and the backbone knows 4"):
        encode_some(many, backbone=backbone, codec=PixelCodec(3), count=9, seed=0)


def test_prepended_prompts_are_refused() -> None:
    backbone = tiny_dit()
    patched = attach(backbone, filled_patch(backbone, position="prepend", num_prompts=3))
    with pytest.raises(PatchError, match="adds nothing"):
        measure_added(patched, torch.rand(1, *backbone.sample_shape), condition=None, timesteps=[0], seed=0)
