"""The DiT against a plain numpy version in float64: explicit softmax and GELU, loops where the layout matters."""

import math

import numpy as np
import pytest
import torch

from dmp_cli.backbones.dit import DiT, positions
from dmp_cli.backbones.dit_sizes import DiTConfig
from tests.builders import call_of, tiny_dit

CLASSES = [
    {"num_classes": 4, "null_row": True},
    {"num_classes": 4, "null_row": False},
    {"num_classes": 1, "null_row": False},
    {"num_classes": 0, "null_row": False},
]


class PlainDiT:
    """The published forward, from a state_dict."""

    def __init__(self, backbone):
        self.weights = {name: tensor.double().numpy() for name, tensor in backbone.state_dict().items()}
        self.config, self.out = backbone.config, backbone.out_channels

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, x, eps):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)

    def modulation(self, c, name, parts):
        return np.split(self.linear(c / (1 + np.exp(-c)), f"{name}.adaLN_modulation.1"), parts)

    def tokens(self, x):
        """One linear map of each patch's (channel, row, column) values; patches row by row."""
        p, grid = self.config.patch_size, self.config.grid
        kernel = self.weights["x_embedder.proj.weight"].reshape(self.config.hidden_size, -1)
        rows = []
        for r in range(grid):
            for c in range(grid):
                values = x[:, r * p : (r + 1) * p, c * p : (c + 1) * p].reshape(-1)
                rows.append(kernel @ values + self.weights["x_embedder.proj.bias"])
        return np.stack(rows)

    def attention(self, x, name):
        query, key, value = np.split(self.linear(x, f"{name}.qkv"), 3, axis=1)
        size = self.config.hidden_size // self.config.num_heads
        heads = []
        for start in range(0, self.config.hidden_size, size):
            q, k, v = (part[:, start : start + size] for part in (query, key, value))
            scores = np.exp(q @ k.T / math.sqrt(size))
            heads.append(scores / scores.sum(1, keepdims=True) @ v)
        return self.linear(np.concatenate(heads, axis=1), f"{name}.proj")

    def mlp(self, x, name):
        h = self.linear(x, f"{name}.fc1")
        h = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        return self.linear(h, f"{name}.fc2")

    def block(self, x, c, name):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(c, name, 6)
        x = x + gate_a * self.attention(self.norm(x, 1e-6) * (1 + scale_a) + shift_a, f"{name}.attn")
        h = self.norm(x, self.config.mlp_norm_eps) * (1 + scale_m) + shift_m
        return x + gate_m * self.mlp(h, f"{name}.mlp")

    def image(self, x):
        p, grid = self.config.patch_size, self.config.grid
        result = np.full((self.out, grid * p, grid * p), np.nan)
        for n, token in enumerate(x):
            for i in range(p):
                for j in range(p):
                    for c in range(self.out):
                        result[c, n // grid * p + i, n % grid * p + j] = token[(i * p + j) * self.out + c]
        return result

    def __call__(self, x, features, label):
        hidden = self.linear(features, "t_embedder.mlp.0")
        c = self.linear(hidden / (1 + np.exp(-hidden)), "t_embedder.mlp.2")
        if label is not None:
            c = c + self.weights["y_embedder.embedding_table.weight"][label]
        h = self.tokens(x) + self.weights["pos_embed"][0]
        for index in range(self.config.depth):
            h = self.block(h, c, f"blocks.{index}")
        shift, scale = self.modulation(c, "final_layer", 2)
        return self.image(self.linear(self.norm(h, 1e-6) * (1 + scale) + shift, "final_layer.linear"))


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize(
    "changes", [{}, {"learn_sigma": False}, {"input_size": 12, "patch_size": 4, "mlp_norm_eps": 0.1}]
)
def test_forward_is_the_published_one(classes, changes):
    backbone = tiny_dit(**classes, **changes).double()
    x, timesteps, condition = call_of(backbone, count=5)
    with torch.no_grad():
        output = backbone(x.double(), timesteps, condition).numpy()
        features = backbone.t_embedder.features(timesteps).double().numpy()
    assert output.shape == (5, backbone.out_channels, backbone.config.input_size, backbone.config.input_size)
    plain = PlainDiT(backbone)
    for k in range(5):
        expected = plain(x[k].double().numpy(), features[k], None if condition is None else int(condition[k]))
        np.testing.assert_allclose(output[k], expected, rtol=1e-9, atol=1e-9)


def test_gate_vector_is_what_a_forward_computes():
    backbone = tiny_dit()
    seen = []
    handle = backbone.gate_sources["timestep"].register_forward_hook(lambda module, args, output: seen.append(output))
    x, timesteps, condition = call_of(backbone)
    backbone(x, timesteps, condition)
    handle.remove()
    assert len(seen) == 1
    assert torch.equal(seen[0], backbone.gate_vector(timesteps))
    assert seen[0].shape == (3, backbone.gate_width)


@pytest.mark.parametrize(("input_size", "patch_size", "width"), [(8, 2, 16), (6, 1, 24), (32, 2, 384)])
def test_positions_against_loops(input_size, patch_size, width):
    config = DiTConfig(input_size=input_size, patch_size=patch_size, hidden_size=width, num_heads=2)
    table = positions(config)
    grid, quarter = input_size // patch_size, width // 4
    assert (table.shape, table.dtype) == ((grid * grid, width), torch.float32)
    for row in range(grid):
        for column in range(grid):
            expected = []
            for place in (column, row):  # the column's half comes first
                angles = [place / 10_000 ** (k / quarter) for k in range(quarter)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            assert table[row * grid + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_unpatchify_by_hand():
    backbone = DiT(DiTConfig(input_size=4, patch_size=2, in_channels=1, hidden_size=4, num_heads=1, depth=1))
    tokens = torch.arange(4 * 8.0).view(1, 4, 8)  # 4 patches of (row, column, channel) = (2, 2, 2) values
    noise, variance = backbone._unpatchify(tokens)[0]
    assert noise.tolist() == [[0, 2, 8, 10], [4, 6, 12, 14], [16, 18, 24, 26], [20, 22, 28, 30]]
    assert torch.equal(variance, noise + 1)


def test_blocks_and_their_shape():
    backbone = tiny_dit(depth=2)
    blocks = backbone.list_blocks()
    assert [(block.name, block.hidden_shape) for block in blocks] == [("blocks.0", (16, 16)), ("blocks.1", (16, 16))]
    assert all(backbone.get_submodule(block.name) is block.module for block in blocks)


def test_state_dict_has_the_public_names():
    linear = [f"{name}.{kind}" for name in ("t_embedder.mlp.0", "t_embedder.mlp.2") for kind in ("weight", "bias")]
    parts = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
    block = [f"blocks.0.{part}.{kind}" for part in parts for kind in ("weight", "bias")]
    final = [f"final_layer.{part}.{k}" for part in ("linear", "adaLN_modulation.1") for k in ("weight", "bias")]
    stem = ["pos_embed", "x_embedder.proj.weight", "x_embedder.proj.bias", "y_embedder.embedding_table.weight"]
    assert sorted(tiny_dit(depth=1).state_dict()) == sorted([*stem, *linear, *block, *final])
    assert "y_embedder.embedding_table.weight" not in tiny_dit(num_classes=0, null_row=False).state_dict()


def test_null_condition_is_the_last_row():
    backbone = tiny_dit()
    assert backbone.null_condition(3).tolist() == [4, 4, 4]
    assert backbone.y_embedder.embedding_table.num_embeddings == 5
    without = tiny_dit(null_row=False)
    assert without.y_embedder.embedding_table.num_embeddings == 4
    with pytest.raises(ValueError, match="no null row"):
        without.null_condition(3)


def test_a_class_is_asked_for_where_there_is_a_table():
    for classes in CLASSES:
        backbone = tiny_dit(**classes)
        x, timesteps, condition = call_of(backbone)
        if condition is None:
            assert backbone.y_embedder is None
            assert torch.isfinite(backbone(x, timesteps)).all()
        else:
            with pytest.raises(ValueError, match=rf"0\.\.{backbone.config.class_rows - 1}"):
                backbone(x, timesteps)


def test_sizes_rebuild_it():
    backbone = tiny_dit(freq_shift=1.0)
    again = DiT(DiTConfig(**backbone.sizes))
    again.load_state_dict(backbone.state_dict())
    call = call_of(backbone)
    assert torch.equal(again(*call), backbone(*call))


def test_fresh_weights():
    backbone = tiny_dit(depth=2)
    backbone.initialise(seed=0)
    first = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    call = call_of(backbone)
    assert not backbone(*call).any()  # zero output layer
    for name, tensor in first.items():
        if name == "pos_embed":
            assert torch.equal(tensor[0], positions(backbone.config))
        elif name.endswith("bias") or "adaLN" in name or name.startswith("final_layer"):
            assert not tensor.any(), name
        elif name.startswith(("t_embedder", "y_embedder")):
            assert tensor.std().item() == pytest.approx(0.02, rel=0.3), name
        else:
            bound = math.sqrt(6 / (tensor.shape[0] + tensor[0].numel()))
            assert 0.8 * bound < tensor.abs().max() <= bound, name
    backbone.initialise(seed=0)
    assert all(torch.equal(tensor, first[name]) for name, tensor in backbone.state_dict().items())
    backbone.initialise(seed=1)
    assert not torch.equal(backbone.blocks[0].mlp.fc1.weight, first["blocks.0.mlp.fc1.weight"])


def test_positions_are_derived_until_someone_changes_them():
    backbone = tiny_dit()
    assert backbone.derived_tensors() == {"pos_embed"}
    with torch.no_grad():
        backbone.pos_embed[0, 3, 2] += 0.01
    assert backbone.derived_tensors() == set()


def test_a_dit_is_built_on_the_default_device():
    with torch.device("meta"):
        backbone = DiT(DiTConfig())
    assert {parameter.device.type for parameter in backbone.parameters()} == {"meta"}
    assert backbone.device.type == "meta"
