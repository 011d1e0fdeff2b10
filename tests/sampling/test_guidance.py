"""Classifier-free guidance of one prediction, against its formula."""

import pytest
import torch
from torch import nn

from dmp_cli.config import SampleConfig, ScheduleConfig
from dmp_cli.patching import Versions
from dmp_cli.sampling.guidance import predict
from dmp_cli.sampling.sampler import denoise

from .toy import Toy


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


class Pair(Versions):
    """Ours answers 10 * label + channel, the other one 100 + 2 * label + channel."""

    def __init__(self, backbone):
        self.backbone = backbone

    def compile(self):
        raise AssertionError("nothing asks for it here")

    def ours(self, x, timesteps, condition):
        return self.backbone(x, timesteps, condition)

    def theirs(self, x, timesteps, condition):
        return 100 + self.backbone(x, timesteps, condition / 5)


@pytest.mark.parametrize("weight", [1.0, 1.5])
@pytest.mark.parametrize("apart", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("channels", ["3", "all"])
def test_guidance_between_versions_by_hand(weight, apart, channels):
    """a_c + W (a_c - b_c) + (w - 1) (a_c - a_0); a learned variance, channels 4 to 7, stays that of a_c."""
    backbone, x = Labelled(), torch.randn(2, 4, 2, 2)
    config = SampleConfig(guidance=weight, guidance_channels=channels, classes=(0, 1))
    labels = torch.tensor([0, 1])
    output = predict(Pair(backbone), x, 7, labels, backbone=backbone, config=config, apart=apart)
    for row, label in enumerate((0, 1)):
        for channel in range(8):
            ours, theirs, null = 10 * label + channel, 100 + 2 * label + channel, 20 + channel
            expected = ours
            if channel < 4:
                expected += apart * (ours - theirs)
            if channel < (3 if channels == "3" else 4):
                expected += (weight - 1) * (ours - null)
            assert output[row, channel] == pytest.approx(torch.full((2, 2), float(expected)).numpy(), abs=1e-4)


def test_only_within_the_interval():
    """With a DDIM of two steps, one near 0 and one near 500: W acts at the one that the interval holds."""
    asked = []

    class Noting(Versions):
        def compile(self):
            raise AssertionError("nothing asks for it here")

        def ours(self, x, timesteps, condition):
            asked.append(("ours", int(timesteps[0])))
            return toy(x, timesteps, condition)

        def theirs(self, x, timesteps, condition):
            asked.append(("theirs", int(timesteps[0])))
            return toy(x, timesteps, condition)

    toy = Toy()
    config = SampleConfig(sampler="ddim", steps=2, num_images=1, batch_size=1, against_scale=1.0, guidance=1.0)
    for interval, expected in (((0.0, 0.2), {0}), ((0.2, 1.0), {500}), ((0.0, 1.0), {0, 500})):
        asked.clear()
        how = {"config": config.model_copy(update={"against_interval": interval}), "clips": False}
        denoise(toy, range(1), backbone=toy, versions=Noting(), **how)
        assert {timestep for who, timestep in asked if who == "theirs"} == expected
        assert {timestep for who, timestep in asked if who == "ours"} == {0, 500}
