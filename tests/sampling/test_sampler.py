"""Sampling in chunks: what each image's bytes may depend on, and what a sample holds."""

import numpy as np
import pytest
import torch
from torch import nn

from dmp_cli.config import CodecRecord, SampleConfig
from dmp_cli.errors import DivergedError
from dmp_cli.latents.codec import Codec, PixelCodec
from dmp_cli.patching.attachment import attach
from dmp_cli.sampling.plan import Plan
from dmp_cli.sampling.sampler import chunks, denoise, resolve, sample
from tests.builders import filled_patch, tiny_dit, zero_patch

from .toy import Toy, fast


class Latents(Codec):
    """A codec whose space is not bounded, and which shows what it was given."""

    factor, image_channels, clips, record = 1, 3, False, CodecRecord(kind="vae")
    has_posterior = False

    def measure(self, images):
        return images

    def draw(self, measured, *, noise):
        return measured

    def decode(self, latents):
        self.seen = latents
        return latents[:, :3] / 10


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_only_pixels_are_clipped(sampler):
    toy = Toy(channels=3, spread=2.0)
    config = SampleConfig(num_images=2, batch_size=2, steps=20, sampler=sampler)
    bounded = denoise(toy, range(2), backbone=toy, config=config, clips=PixelCodec(3).clips)
    assert bounded.abs().max() <= 1 + 1e-6
    codec = Latents()
    list(sample(toy, backbone=toy, codec=codec, config=config))
    assert codec.seen.abs().max() > 2


def draw(denoiser, backbone, *, todo=None, **options):
    config = resolve(SampleConfig(**{"steps": 5, "batch_size": 4, **options}), backbone)
    images = sample(denoiser, backbone=backbone, codec=PixelCodec(3), config=config, todo=todo)
    return {image.index: image for chunk in images for image in chunk}


def bytes_of(images):
    return {index: image.pixels.tobytes() for index, image in images.items()}


def test_a_sample_has_an_index_a_label_and_uint8_pixels(backbone):
    images = draw(backbone, backbone, num_images=6)
    assert list(images) == [0, 1, 2, 3, 4, 5]
    assert [image.label for image in images.values()] == [0, 1, 2, 3, 0, 1]
    assert all(image.pixels.dtype == np.uint8 and image.pixels.shape == (8, 8, 3) for image in images.values())
    assert len(set(bytes_of(images).values())) == 6
    assert all(image.pixels.std() > 10 for image in images.values())


def test_chunks_cover_the_images():
    assert chunks(SampleConfig(num_images=7, batch_size=3)) == [range(3), range(3, 6), range(6, 9)]
    assert chunks(SampleConfig(num_images=1, batch_size=3)) == [range(3)]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_the_number_of_images_changes_no_byte(backbone, sampler):
    many = bytes_of(draw(backbone, backbone, num_images=10, sampler=sampler, guidance=2.0))
    for count in (1, 4, 5):
        few = bytes_of(draw(backbone, backbone, num_images=count, sampler=sampler, guidance=2.0))
        assert few == {index: many[index] for index in range(count)}


def test_a_single_chunk_changes_no_byte(backbone):
    whole = bytes_of(draw(backbone, backbone, num_images=10))
    part = bytes_of(draw(backbone, backbone, num_images=10, todo=[range(8, 12), range(4, 8)]))
    assert list(part) == [8, 9, 4, 5, 6, 7]
    assert part == {index: whole[index] for index in part}


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_the_batch_size_changes_a_pixel_by_a_level_at_most(backbone, sampler):
    one, seven = (draw(backbone, backbone, num_images=9, batch_size=size, sampler=sampler) for size in (1, 7))
    for index in range(9):
        difference = one[index].pixels.astype(int) - seven[index].pixels.astype(int)
        assert np.abs(difference).max() <= 1
        assert one[index].label == seven[index].label


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_every_image_has_its_own_noise(sampler):
    toy = Toy()
    alone = {index: fast(toy, range(index, index + 1), steps=20, sampler=sampler)[0] for index in range(4)}
    together = fast(toy, range(4), steps=20, sampler=sampler)
    for index in range(4):
        assert np.abs(alone[index] - together[index]).max() < 1e-5
        assert np.abs(alone[index] - alone[(index + 1) % 4]).max() > 0.1
    assert np.abs(fast(toy, range(1), steps=20, sampler=sampler, seed=1)[0] - alone[0]).max() > 0.1


class Watch(nn.Module):
    """Passes calls on and keeps the first noise and all conditions."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser, self.starts, self.conditions = denoiser, [], []

    def forward(self, x, timesteps, condition):
        if not self.conditions or timesteps[0] > self.last:
            self.starts.append(x.clone())
        self.last = timesteps[0]
        self.conditions.append(condition.tolist())
        return self.denoiser(x, timesteps, condition)


def test_patched_and_bare_start_from_the_same_noise(backbone):
    options = {"num_images": 6, "steps": 3, "seed": 9}
    bare = Watch(backbone)
    plain = bytes_of(draw(bare, backbone, **options))
    for patch, changes in ((zero_patch(backbone), False), (filled_patch(backbone), True)):
        patched = attach(backbone, patch)
        watch = Watch(patched)
        assert (bytes_of(draw(watch, backbone, **options)) != plain) == changes
        assert len(watch.starts) == 2
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(watch.starts, bare.starts, strict=True))
        patched.strength = 0.0
        assert bytes_of(draw(patched, backbone, **options)) == plain
        patched.detach()
    assert bytes_of(draw(backbone, backbone, **options)) == plain


def test_classes_are_taken_in_turn(backbone):
    watch = Watch(backbone)
    images = draw(watch, backbone, num_images=7, classes=(3, 1, 1), steps=2)
    assert [image.label for image in images.values()] == [3, 1, 1, 3, 1, 1, 3]
    assert watch.conditions == [[3, 1, 1, 3]] * 2 + [[1, 1, 3, 1]] * 2
    assert Plan(SampleConfig(classes=(5, 6, 7))).item(8).label == 7
    assert Plan(SampleConfig()).item(8).label is None


def test_a_backbone_without_classes():
    backbone = tiny_dit(num_classes=0, null_row=False, learn_sigma=False)
    assert [image.label for image in draw(backbone, backbone, num_images=2).values()] == [None, None]


def test_reduced_precision_stays_close(backbone):
    configs = [resolve(SampleConfig(steps=3, sampler="ddim", dtype=dtype), backbone) for dtype in ("fp32", "bf16")]
    full, half = (denoise(backbone, range(2), backbone=backbone, config=config, clips=False) for config in configs)
    assert half.dtype == torch.float32
    assert 0 < (full - half).abs().max() < 0.05 * full.abs().max()


def test_an_image_that_is_not_finite_is_named(backbone):
    class Overflow(nn.Module):
        def forward(self, x, timesteps, condition):
            output = backbone(x, timesteps, condition)
            output[2, 0, 0, 0] = float("nan")
            return output

    with pytest.raises(DivergedError, match="image 6 is not finite") as caught:
        draw(Overflow(), backbone, num_images=8, todo=[range(4, 8)])
    assert "--dtype fp32" in caught.value.hint
