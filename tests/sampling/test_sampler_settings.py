"""Settings of sampling that the backbone fills in, and those that it cannot carry out."""

import pytest

from dmp_cli.config import SampleConfig
from dmp_cli.errors import ConfigError
from dmp_cli.sampling.sampler import resolve
from tests.builders import tiny_dit


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
