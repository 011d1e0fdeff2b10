"""Classifier-free guidance of one prediction, against its formula."""

import pytest
import torch
from torch import nn

from dmp_cli.config import SampleConfig, ScheduleConfig
from dmp_cli.sampling.sampler import predict

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
