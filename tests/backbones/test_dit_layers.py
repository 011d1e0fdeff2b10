"""The embedders of a DiT: timestep features by hand, precision and memory layout."""

import math

import pytest
import torch

from tests.builders import call_of, tiny_dit


@pytest.mark.parametrize("freq_shift", [0.0, 1.0])
def test_timestep_features_by_hand(freq_shift):
    embedder = tiny_dit(freq_shift=freq_shift).t_embedder
    timesteps = torch.tensor([0, 1, 37, 999])
    features = embedder.features(timesteps)
    assert (features.shape, features.dtype) == ((4, 256), torch.float32)
    assert features[0].tolist() == [1.0] * 128 + [0.0] * 128  # cosines first
    for row, t in zip(features.tolist(), timesteps.tolist(), strict=True):
        for k in range(128):
            angle = t * 10_000 ** (-k / (128 - freq_shift))
            assert row[k] == pytest.approx(math.cos(angle), abs=2e-4)
            assert row[128 + k] == pytest.approx(math.sin(angle), abs=2e-4)
    # slowest frequency: 1 / 10000 with the shift, a little faster without
    assert features[3, 255].item() == pytest.approx(math.sin(999 * 10_000 ** (-127 / (128 - freq_shift))), abs=1e-6)


def test_timesteps_are_embedded_in_float32_inside_autocast():
    backbone = tiny_dit()
    outside = backbone.gate_vector(torch.tensor([3, 999]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = backbone.gate_vector(torch.tensor([3, 999]))
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_tokens_leave_the_embedder_contiguous():
    backbone = tiny_dit()
    assert backbone.x_embedder(call_of(backbone)[0]).is_contiguous()
