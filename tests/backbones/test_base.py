"""The seam's defaults: where a block's call holds its hidden state, and families without fresh weights."""

import pytest
import torch

from dmp_cli.backbones import Backbone
from dmp_cli.errors import ConfigError
from tests.builders import tiny_dit


def test_the_hidden_state_is_the_first_argument_or_a_keyword():
    hidden, other = torch.zeros(1), torch.ones(1)
    assert Backbone.take_hidden((hidden, 5), {}) is hidden
    assert Backbone.take_hidden((), {"hidden_states": hidden, "temb": 5}) is hidden
    assert Backbone.put_hidden((hidden, 5), {"a": 1}, other) == ((other, 5), {"a": 1})
    call = {"hidden_states": hidden, "temb": 5}
    assert Backbone.put_hidden((), call, other) == ((), {"hidden_states": other, "temb": 5})
    assert call["hidden_states"] is hidden


def test_a_family_without_fresh_weights_refuses_training_from_scratch():
    with pytest.raises(ConfigError, match="dit backbone from scratch"):
        Backbone.initialise(tiny_dit(), seed=0)
