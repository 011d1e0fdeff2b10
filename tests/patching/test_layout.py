"""The tensors that a header describes are those that Patch makes, for every variant; impossible ones are named."""

from __future__ import annotations

import pytest

from dmp_cli.config import ExpertLayer, PatchConfig
from dmp_cli.patching.layout import find_contradiction, find_differences, num_prompts, patch_shapes
from dmp_cli.patching.prompts import Patch

TOKENS, MAPS = [(16, 8)] * 3, [(4, 4, 8), (2, 2, 16), (4, 4, 4)]
VARIANTS = [
    (PatchConfig(), TOKENS),
    (PatchConfig(scope="uniform"), TOKENS),
    (PatchConfig(selection="hard", top_k=16), TOKENS),
    (PatchConfig(gate="attention"), TOKENS),
    (PatchConfig(gate="attention", scope="uniform"), TOKENS),
    (PatchConfig(gate="constant"), TOKENS),
    (PatchConfig(gate="none"), TOKENS),
    (PatchConfig(position="prepend", num_prompts=5), [(5, 8)] * 3),
    (PatchConfig(depth=0), []),
    (PatchConfig(gate="attention", depth=0), []),
    (PatchConfig(), MAPS),
    (PatchConfig(gate="none"), MAPS),
]


@pytest.mark.parametrize(("config", "shapes"), VARIANTS)
def test_every_variant(config, shapes):
    patch = Patch(config, hidden_shapes=shapes, gate_width=12)
    described = patch_shapes(config, hidden_shapes=shapes, gate_width=12)
    assert described == {name: tuple(tensor.shape) for name, tensor in patch.state_dict().items()}
    assert num_prompts(shapes) == patch.num_prompts
    assert find_contradiction(config, hidden_shapes=shapes) is None


CONTRADICTIONS = [
    (PatchConfig(), [(16, 8), (4, 4, 8)], "neither all of tokens"),
    (PatchConfig(), [(16,)], "neither all of tokens"),
    (PatchConfig(), [(16, 8), (17, 8)], "16 to 17 prompts"),
    (PatchConfig(selection="hard", top_k=17), TOKENS, "top 17 of 16"),
    (PatchConfig(gate="attention"), MAPS, "tokens of one width"),
    (PatchConfig(gate="attention"), [(16, 8), (16, 9)], "tokens of one width"),
    (PatchConfig(gate="constant"), [(1000, 1000, 1), *[(1, 1, 1)] * 100], "more weights than its prompts could need"),
]


@pytest.mark.parametrize(("config", "shapes", "reason"), CONTRADICTIONS)
def test_what_no_patch_is(config, shapes, reason):
    assert reason in str(find_contradiction(config, hidden_shapes=shapes))


LAYERS = [[ExpertLayer(name="qkv", inputs=8, outputs=24)], [], [ExpertLayer(name="a.b", inputs=3, outputs=5)]]


@pytest.mark.parametrize("gate", ["linear", "none"])
@pytest.mark.parametrize(("experts", "shapes"), [("lora", TOKENS), ("both", TOKENS), ("lora", MAPS), ("both", MAPS)])
def test_experts(experts, shapes, gate):
    config = PatchConfig(experts=experts, num_experts=3, expert_rank=2, gate=gate)
    patch = Patch(config, hidden_shapes=shapes, gate_width=12, expert_layers=LAYERS)
    described = patch_shapes(config, hidden_shapes=shapes, gate_width=12, expert_layers=LAYERS)
    assert described == {name: tuple(tensor.shape) for name, tensor in patch.state_dict().items()}
    assert find_contradiction(config, hidden_shapes=shapes, expert_layers=LAYERS) is None


@pytest.mark.parametrize(
    ("options", "layers", "reason"),
    [
        ({}, LAYERS, "against its own variant"),
        ({"experts": "lora"}, [], "against its own variant"),
        ({"experts": "both"}, [], "against its own variant"),
        ({"experts": "lora"}, LAYERS[:1], "experts in 1 blocks of 3"),
        ({"experts": "lora"}, [[], [], []], "or in no layer"),
        ({"experts": "lora", "selection": "hard", "top_k": 5}, LAYERS, "top 5 of 4"),
    ],
)
def test_experts_that_no_patch_has(options, layers, reason):
    found = find_contradiction(PatchConfig(**options), hidden_shapes=TOKENS, expert_layers=layers)
    assert reason in str(found)


def test_differences_are_named():
    expected = {"a": (1, 2), "b": (3,)}
    assert find_differences(expected, expected) is None
    assert find_differences({"a": [1, 2], "b": [3]}, expected) is None
    assert find_differences({"a": (1, 2)}, expected) == "b is missing"
    assert find_differences({**expected, "c": ()}, expected) == "c is not described"
    assert find_differences({"a": (2, 1), "b": (3,)}, expected) == "a has shape (2, 1), not (1, 2)"
