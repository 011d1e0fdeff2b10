"""Sampling against slow float64 loops written from the equations, and what each image's bytes may depend on."""

import numpy as np
import pytest
import torch
from torch import nn

from dmp_cli.config import CodecRecord, SampleConfig, ScheduleConfig
from dmp_cli.data.batches import to_uint8
from dmp_cli.errors import ConfigError, DivergedError
from dmp_cli.latents.codec import Codec, PixelCodec
from dmp_cli.patching.attachment import attach
from dmp_cli.runtime import randomness
from dmp_cli.sampling.plan import Plan
from dmp_cli.sampling.sampler import chunks, denoise, predict, resolve, sample
from dmp_cli.sampling.scheduler import build_scheduler
from tests.builders import filled_patch, tiny_dit, zero_patch

SIDE = 4


def betas_of(kind, count=1000):
    """Ho et al. 2020; Nichol and Dhariwal 2021, Eq. 17."""
    if kind == "linear":
        return np.linspace(1e-4, 0.02, count)
    f = [np.cos((t / count + 0.008) / 1.008 * np.pi / 2) ** 2 for t in range(count + 1)]
    return np.array([min(1 - f[t + 1] / f[t], 0.999) for t in range(count)])


class Toy(nn.Module):
    """The best denoiser of Gaussian data N(mean, U diag(spread) U^T) over channels, linear in x: so its flow is known.

    eps = sqrt(1 - abar) (abar Cov + 1 - abar)^-1 (x - sqrt(abar) mean); its variance output is V x.
    """

    num_classes, has_null, takes_text, device = 0, False, False, torch.device("cpu")

    def __init__(self, *, kind="linear", learns_sigma=True, channels=4, spread=0.1, count=1000):
        super().__init__()
        self.schedule = ScheduleConfig(kind=kind, num_timesteps=count)
        self.learns_sigma, self.sample_shape = learns_sigma, (channels, SIDE, SIDE)
        draws = np.random.default_rng(0)
        self.axes = np.linalg.qr(draws.normal(size=(channels, channels)))[0]
        self.spread = spread * np.arange(1, channels + 1)
        self.mean = 0.3 * draws.normal(size=(channels, 1, 1))
        self.variance = 0.3 * draws.normal(size=(channels, channels))
        self.kept = np.cumprod(1 - betas_of(kind, count))

    def forward(self, x, timesteps, condition=None):
        kept = self.kept[timesteps.numpy()][:, None, None, None]
        along = np.sqrt(1 - kept) / (kept * self.spread[:, None, None] + 1 - kept)
        axes, along, centre = (torch.tensor(v, dtype=x.dtype) for v in (self.axes, along, np.sqrt(kept) * self.mean))
        epsilon = mix(axes, along * mix(axes.T, x - centre))
        if not self.learns_sigma:
            return epsilon
        return torch.cat([epsilon, mix(torch.tensor(self.variance, dtype=x.dtype), x)], dim=1)

    def flow(self, x):
        """Where the probability flow leads noise ``x`` of the last timestep: along each axis from spread to spread."""
        kept = self.kept[-1]
        shrink = np.sqrt(self.spread / (kept * self.spread + 1 - kept))
        matrix = self.axes @ np.diag(shrink) @ self.axes.T
        return np.einsum("oc,bchw->bohw", matrix, x - np.sqrt(kept) * self.mean) + self.mean


def mix(matrix, x):
    return torch.einsum("oc,bchw->bohw", matrix, x)


def evaluate(toy, x, timestep):
    """The toy in float64: (eps, variance output)."""
    output = toy(torch.tensor(x), torch.full((len(x),), int(timestep))).numpy()
    return output[:, : x.shape[1]], output[:, x.shape[1] :]


def start_of(toy, indices, seed=0):
    return randomness.normal("start", toy.sample_shape, seed=seed, indices=indices).double().numpy()


def slow_ddpm(toy, indices, num_steps, *, clip, seed=0):
    """Ancestral sampling of the respaced chain: posterior mean, and a log variance between its two bounds."""
    count, x = len(toy.kept), start_of(toy, indices, seed)
    timesteps = [round(k * (count - 1) / (num_steps - 1)) for k in range(num_steps)][::-1]
    for step, t in enumerate(timesteps):
        kept = toy.kept[t]
        kept_before = toy.kept[timesteps[step + 1]] if step + 1 < num_steps else 1.0
        beta = 1 - kept / kept_before
        epsilon, variance = evaluate(toy, x, t)
        x0 = (x - np.sqrt(1 - kept) * epsilon) / np.sqrt(kept)
        x0 = np.clip(x0, -1, 1) if clip else x0
        mean = np.sqrt(kept_before) * beta / (1 - kept) * x0
        mean += np.sqrt(1 - beta) * (1 - kept_before) / (1 - kept) * x
        if step + 1 == num_steps:
            return mean
        low, high = np.log(beta * (1 - kept_before) / (1 - kept)), np.log(beta)
        fraction = (variance + 1) / 2 if toy.learns_sigma else 0.0
        sources = [randomness.torch_generator("sample", seed=seed, step=step, index=index) for index in indices]
        noise = np.stack([torch.randn(toy.sample_shape, generator=source).numpy() for source in sources])
        x = mean + np.exp((fraction * high + (1 - fraction) * low) / 2) * noise
    raise AssertionError


def slow_ddim(toy, indices, num_steps, *, clip=False, seed=0):
    """Song et al. 2021, Eq. 12 with eta 0, in equal strides down to 0; eps goes with the clipped x_0."""
    stride, x = len(toy.kept) // num_steps, start_of(toy, indices, seed)
    for t in range((num_steps - 1) * stride, -1, -stride):
        kept, kept_before = toy.kept[t], toy.kept[t - stride] if t >= stride else 1.0
        epsilon, _ = evaluate(toy, x, t)
        x0 = (x - np.sqrt(1 - kept) * epsilon) / np.sqrt(kept)
        if clip:
            x0 = np.clip(x0, -1, 1)
            epsilon = (x - np.sqrt(kept) * x0) / np.sqrt(1 - kept)
        x = np.sqrt(kept_before) * x0 + np.sqrt(1 - kept_before) * epsilon
    return x


def bound_for(num_steps):
    """With schedule tables in float32 the difference would be some 1e-5; a thousand float32 steps round to as much."""
    return 2e-6 if num_steps <= 250 else 1e-5


def fast(toy, indices, *, clip=False, **options):
    config = SampleConfig(num_images=len(indices), batch_size=len(indices), **options)
    return denoise(toy, indices, backbone=toy, config=config, clips=clip).numpy()


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("learns_sigma", [False, True])
def test_ddpm_is_the_respaced_posterior(kind, clip, learns_sigma):
    toy, indices = Toy(kind=kind, learns_sigma=learns_sigma), range(5, 8)
    expected = slow_ddpm(toy, indices, 250, clip=clip, seed=3)
    assert np.abs(expected).max() == 1 if clip else 1.2 < np.abs(expected).max() < 3
    assert np.abs(fast(toy, indices, clip=clip, steps=250, seed=3) - expected).max() <= bound_for(250)


@pytest.mark.parametrize(("num_steps", "count"), [(7, 1000), (1000, 1000), (25, 100), (100, 100)])
def test_ddpm_of_other_lengths(num_steps, count):
    toy, indices = Toy(count=count), range(2)
    expected = slow_ddpm(toy, indices, num_steps, clip=False)
    assert np.abs(fast(toy, indices, steps=num_steps) - expected).max() <= bound_for(num_steps)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("num_steps", "learns_sigma"), [(50, True), (50, False), (7, True), (1000, True)])
def test_ddim_walks_in_equal_strides(kind, clip, num_steps, learns_sigma):
    toy, indices = Toy(kind=kind, learns_sigma=learns_sigma), range(5, 8)
    expected = slow_ddim(toy, indices, num_steps, clip=clip, seed=3)
    got = fast(toy, indices, clip=clip, steps=num_steps, sampler="ddim", seed=3)
    assert np.abs(expected).max() == 1 if clip else 1 < np.abs(expected).max() < 3
    assert np.abs(got - expected).max() <= bound_for(num_steps)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_dpm_and_a_fine_ddim_converge_to_the_flow(kind):
    toy, indices = Toy(kind=kind), range(3)
    limit = toy.flow(start_of(toy, indices))
    errors = {n: np.abs(fast(toy, indices, steps=n, sampler="dpm++") - limit).max() for n in (10, 20, 50, 200, 999)}
    assert errors[10] / 2 > errors[20] > 3 * errors[50] > 9 * errors[200]
    assert errors[999] < 2e-3
    ddim = {n: np.abs(fast(toy, indices, steps=n, sampler="ddim") - limit).max() for n in (50, 200, 1000)}
    assert ddim[50] / 3 > ddim[200] > 4 * ddim[1000]  # of first order in the stride
    assert ddim[1000] < 1e-2
    assert errors[50] < ddim[50] / 2


def test_schedulers_use_float64_tables():
    for sampler in ("ddpm", "ddim", "dpm++"):
        config = SampleConfig(sampler=sampler, steps=10)
        scheduler = build_scheduler(ScheduleConfig(), config, learns_sigma=True, clips=False)
        assert scheduler.alphas_cumprod.dtype == torch.float64
        assert np.abs(scheduler.alphas_cumprod.numpy() - np.cumprod(1 - betas_of("linear"))).max() < 1e-15


# --- clipping --------------------------------------------------------------------------------------------------------


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


# --- guidance --------------------------------------------------------------------------------------------------------


class Labelled(nn.Module):
    """Answers 10 * label + channel everywhere, and remembers what it was asked."""

    num_classes, has_null, learns_sigma = 2, True, True
    sample_shape, schedule, device = (4, 2, 2), ScheduleConfig(), torch.device("cpu")

    def null_condition(self, count):
        return torch.full((count,), 2)

    def forward(self, x, timesteps, condition):
        self.asked = (x, timesteps, condition)
        channels = torch.arange(8.0).view(1, 8, 1, 1)
        return (10.0 * condition.view(-1, 1, 1, 1) + channels).expand(-1, -1, 2, 2).double()


@pytest.mark.parametrize(("channels", "guided"), [("3", 3), ("all", 4)])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.5, 4.0])
def test_guidance_by_hand(channels, guided, weight):
    backbone, x = Labelled(), torch.randn(2, 4, 2, 2)
    config = SampleConfig(guidance=weight, guidance_channels=channels, classes=(0, 1))
    output = predict(backbone, x, 7, torch.tensor([0, 1]), backbone=backbone, config=config)
    assert output.dtype == torch.float32
    for row, label in enumerate((0, 1)):
        for channel in range(8):
            conditional, null = 10 * label + channel, 20 + channel
            expected = null + weight * (conditional - null) if channel < guided else conditional
            assert output[row, channel].eq(expected).all()
    seen, timesteps, condition = backbone.asked
    assert torch.equal(seen, torch.cat([x, x]))
    assert timesteps.tolist() == [7] * 4
    assert condition.tolist() == [0, 1, 2, 2]


def test_without_guidance_there_is_one_plain_call():
    backbone, x = Labelled(), torch.randn(2, 4, 2, 2)
    output = predict(backbone, x, 7, torch.tensor([0, 1]), backbone=backbone, config=SampleConfig(guidance=1.0))
    assert torch.equal(output, backbone(x, torch.tensor([7, 7]), torch.tensor([0, 1])).float())
    toy = Toy()
    assert predict(toy, x.expand(2, 4, 2, 2), 3, None, backbone=toy, config=SampleConfig(guidance=2.0)).shape[1] == 8


# --- plan and chunks -------------------------------------------------------------------------------------------------


def draw(denoiser, backbone, *, todo=None, **options):
    config = resolve(SampleConfig(**{"steps": 5, "batch_size": 4, **options}), backbone)
    images = sample(denoiser, backbone=backbone, codec=PixelCodec(3), config=config, todo=todo)
    return {image.index: image for chunk in images for image in chunk}


def bytes_of(images):
    return {index: image.pixels.tobytes() for index, image in images.items()}


@pytest.fixture(scope="module")
def backbone():
    return tiny_dit()


def test_what_a_sample_is(backbone):
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


def test_levels():
    values = torch.tensor([-2.0, -1.0, -1 + 1.01 / 255, 0.0, 0.999, 1.0, 7.0]).view(1, 1, 1, 7)
    assert to_uint8(values)[0, 0, :, 0].tolist() == [0, 0, 1, 128, 255, 255, 255]
    assert to_uint8(torch.zeros(2, 3, 4, 5)).shape == (2, 4, 5, 3)
    every = torch.arange(256) / 127.5 - 1
    assert to_uint8(every.view(1, 1, 1, 256)).ravel().tolist() == list(range(256))


# --- settings and the backbone ---------------------------------------------------------------------------------------


def test_what_depends_on_the_backbone_is_filled_in(backbone):
    assert resolve(SampleConfig(), backbone).classes == (0, 1, 2, 3)
    given = SampleConfig(classes=(2, 0), guidance=1.5, steps=1000)
    assert resolve(given, backbone) == given
    assert resolve(SampleConfig(), tiny_dit(num_classes=0, null_row=False)).classes is None
    assert resolve(SampleConfig(), tiny_dit(num_classes=1, null_row=False)).classes == (0,)


@pytest.mark.parametrize(
    ("options", "changes", "words"),
    [
        ({"classes": (0, 4)}, {}, r"--classes 0,4: this backbone knows classes 0\.\.3"),
        ({"classes": (-1,)}, {}, r"--classes -1: .*0\.\.3"),
        ({"classes": (0,)}, {"num_classes": 0, "null_row": False}, "--classes 0: this backbone knows no classes"),
        ({"guidance": 1.5}, {"null_row": False}, "--guidance 1.5 needs a null condition"),
        ({"guidance": 0.0}, {"num_classes": 1, "null_row": False}, "--guidance 0 needs a null condition"),
        ({"guidance_channels": "3"}, {"in_channels": 1}, "--guidance-channels 3: this backbone has only 1"),
        ({"steps": 1001}, {}, "--steps 1001: ddpm takes at most 1000"),
        ({"steps": 1000, "sampler": "dpm++"}, {}, r"--steps 1000: dpm\+\+ takes at most 999"),
        (
            {"steps": 600, "sampler": "ddim"},
            {},
            "--steps 600: ddim in strides of 1 would start at timestep 599 of 1000",
        ),
    ],
)
def test_settings_that_the_backbone_cannot_carry_out(options, changes, words):
    with pytest.raises(ConfigError, match=words):
        resolve(SampleConfig(**options), tiny_dit(**changes))


def test_the_numbers_of_ddim_steps_that_are_offered_instead(backbone):
    for asked in (334, 501, 600, 899):
        with pytest.raises(ConfigError) as caught:
            resolve(SampleConfig(steps=asked, sampler="ddim"), backbone)
        offered = [int(word) for word in caught.value.hint.split() if word.isdigit()]
        assert len(offered) == 2
        for steps in offered:
            resolve(SampleConfig(steps=steps, sampler="ddim"), backbone)
    for steps in (1, 2, 3, 7, 30, 50, 250, 999):
        resolve(SampleConfig(steps=steps, sampler="ddim"), backbone)
