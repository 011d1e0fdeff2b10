"""The sizes of a DiT: the public names and sizes that are refused."""

import pytest
from pydantic import ValidationError

from dmp_cli.backbones.dit_sizes import named_config, standard_heads
from tests.builders import tiny_dit


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"input_size": 9}, "patch size 2 does not divide"),
        ({"num_heads": 3}, "multiple of 4"),
        ({"hidden_size": 18}, "multiple of 4"),
        ({"num_classes": 0}, "null row needs classes"),
        ({"depth": 0}, "greater than or equal to 1"),
    ],
)
def test_invalid_sizes_are_refused(changes, reason):
    with pytest.raises(ValidationError, match=reason):
        tiny_dit(**changes)


def test_names_of_the_public_sizes():
    sizes = {"dit-s2": (12, 384, 6, 2), "DiT-B/4": (12, 768, 12, 4), "dit-l/2": (24, 1024, 16, 2)}
    sizes |= {"DiT-XL/8": (28, 1152, 16, 8)}
    for name, expected in sizes.items():
        config = named_config(name)
        assert (config.depth, config.hidden_size, config.num_heads, config.patch_size) == expected
        assert config.mlp_size == 4 * config.hidden_size
        assert standard_heads(config.hidden_size) == config.num_heads
    for name in ("dit-q2", "dit-b3", "dit-b", "dit-b2.pt", "digits", "dit-xl22"):
        assert named_config(name) is None
    assert standard_heads(96) is None
