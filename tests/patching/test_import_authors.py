"""The authors' checkpoints: their outputs, from a separate slow forward in float64, and what is refused."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from dmp_cli.backbones import load_backbone
from dmp_cli.errors import CheckpointError, ConfigError
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.file import load_patch, save_patch
from dmp_cli.patching.import_authors import import_patch, read_authors
from dmp_cli.storage.weights import read_weights
from tests.builders import PIXELS, TOLD, authors_patch, call_of, tiny_dit, write_authors_checkpoint, write_weights

HEADS, PATCH = 2, 2


@pytest.fixture
def tensors():
    dit = tiny_dit(seed=7)
    return {**dit.state_dict(), **authors_patch(dit)}


def load(path, **told):
    return load_backbone(str(path), **{**TOLD, **told})


def imported(path, backbone):
    return import_patch(path, backbone, codec=PIXELS, image_size=8)


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def normed(x, shift, scale):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + scale[:, None]) + shift[:, None]


def attention(w, name, x):
    width = x.shape[-1]
    qkv, heads = linear(w, f"{name}.qkv", x), []
    for start in range(0, width, width // HEADS):
        q, k, v = (qkv[..., part * width + start :][..., : width // HEADS] for part in range(3))
        heads.append((q @ k.transpose(1, 2) / (width // HEADS) ** 0.5).softmax(-1) @ v)
    return linear(w, f"{name}.proj", torch.cat(heads, -1))


def block(w, name, x, c):
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = linear(w, f"{name}.adaLN_modulation.1", c * c.sigmoid()).split(
        x.shape[-1], dim=1
    )
    x = x + gate_a[:, None] * attention(w, f"{name}.attn", normed(x, shift_a, scale_a))
    hidden = F.gelu(linear(w, f"{name}.mlp.fc1", normed(x, shift_m, scale_m)), approximate="tanh")
    return x + gate_m[:, None] * linear(w, f"{name}.mlp.fc2", hidden)


def conditioning(w, timesteps, labels, features):
    hidden = linear(w, "t_embedder.mlp.0", features)
    t = linear(w, "t_embedder.mlp.2", hidden * hidden.sigmoid())
    return t, w["y_embedder.embedding_table.weight"][labels]


def theirs(tensors, x, timesteps, labels, features, *, read_class=True):
    """The authors' forward, block by block: softmax(W [c; i] + b) weighs the prompts before block i."""
    w = {name: tensor.double() for name, tensor in tensors.items()}
    t, y = conditioning(w, timesteps, labels, features.double())
    c = t + y
    batch, channels, side, _ = x.shape
    grid = side // PATCH
    cells = x.double().view(batch, channels, grid, PATCH, grid, PATCH).permute(0, 2, 4, 1, 3, 5)
    kernel = w["x_embedder.proj.weight"].flatten(1)
    hidden = cells.reshape(batch, grid**2, -1) @ kernel.T + w["x_embedder.proj.bias"] + w["pos_embed"]
    for i, prompts in enumerate(w["prompt_embeddings"]):
        depth = torch.full((batch, 1), float(i), dtype=torch.float64)
        weights = linear(w, "gate", torch.cat([c if read_class else t, depth], 1)).softmax(-1)
        hidden = block(w, f"blocks.{i}", hidden + weights[:, :, None] * prompts, c)
    shift, scale = linear(w, "final_layer.adaLN_modulation.1", c * c.sigmoid()).chunk(2, 1)
    out = linear(w, "final_layer.linear", normed(hidden, shift, scale)).view(batch, grid, grid, PATCH, PATCH, -1)
    return out.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, side, side)


@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_the_patched_output_is_theirs(tmp_path, tensors, prefix):
    path = write_authors_checkpoint(tmp_path / "0030000.pt", tensors, prefix=prefix)
    assert not [name for name in sys.modules if name.split(".")[0] == "omegaconf"]
    backbone = load(path)
    save_patch(tmp_path / "theirs.safetensors", imported(path, backbone))
    patched = attach(backbone, load_patch(tmp_path / "theirs.safetensors"))
    call = call_of(backbone)
    features = backbone.t_embedder.features(call[1])
    with torch.no_grad():
        ours = patched(*call).double()
    expected = theirs(tensors, *call, features)
    bound = 1e-5 * expected.abs().max()
    assert (ours - expected).abs().max() < bound
    # the comparison sees the class in the gate, the depth in its last column, and the prompts
    columns = torch.cat([tensors["gate.weight"][:, -1:], tensors["gate.weight"][:, :-1]], 1)
    others = [
        theirs(tensors, *call, features, read_class=False),
        theirs({**tensors, "gate.weight": columns}, *call, features),
        theirs({**tensors, "prompt_embeddings": 0 * tensors["prompt_embeddings"]}, *call, features),
    ]
    assert all((other - expected).abs().max() > 1000 * bound for other in others)


@pytest.mark.parametrize("noise", [True, False])
def test_what_an_imported_patch_records(tmp_path, tensors, noise):
    tensors = {name: tensor for name, tensor in tensors.items() if noise or name != "w_noise"}
    path = write_authors_checkpoint(tmp_path / "0030000.pt", tensors)
    record = imported(path, load(path)).record
    assert record.training == {
        "method": "dmp",
        "imported_from": "0030000.pt",
        "w_noise": "present, not used" if noise else "absent",
    }
    assert record.config.gate_input == "conditioning"
    assert (record.hidden_shapes, record.gate_width, record.image_size) == ([[16, 16]] * 3, 16, 8)
    assert record.backbone.source == str(path)


def test_their_backbone_is_the_dit_alone(tmp_path, tensors):
    """The backbone's digest is the same with and without the patch in the file, in a pickle and in safetensors."""
    dit = {name: tensors[name] for name in tiny_dit().state_dict()}
    paths = [
        write_authors_checkpoint(tmp_path / "a.pt", tensors),
        write_weights(tmp_path / "b.pt", dit),
        write_weights(tmp_path / "c.safetensors", tensors),
    ]
    assert len({load(path).record.digest for path in paths}) == 1
    assert load(paths[0]).state_dict().keys() == dit.keys()
    weights = read_weights(tmp_path / "c.safetensors")
    assert weights.patch.keys() == {"prompt_embeddings", "gate.weight", "gate.bias", "w_noise"}
    # any file with these very weights will do as the backbone
    patch = imported(tmp_path / "a.pt", load(paths[1]))
    assert torch.equal(patch.gate.weight, tensors["gate.weight"])


def test_half_precision_is_read_as_float32(tmp_path, tensors):
    path = write_authors_checkpoint(tmp_path / "a.pt", {name: tensor.half() for name, tensor in tensors.items()})
    patch = imported(path, load(path))
    assert {parameter.dtype for parameter in patch.parameters()} == {torch.float32}
    assert torch.equal(patch.prompts[1], tensors["prompt_embeddings"][1].half().float())


def test_an_imported_patch_owns_its_memory(tmp_path, tensors):
    save_file(tensors, tmp_path / "a.safetensors")
    patch = imported(tmp_path / "a.safetensors", load(tmp_path / "a.safetensors"))
    size = (tmp_path / "a.safetensors").stat().st_size
    with open(tmp_path / "a.safetensors", "r+b") as file:
        file.write(b"\xff" * size)
    assert torch.equal(patch.prompts[2], tensors["prompt_embeddings"][2])
    assert torch.equal(patch.gate.bias, tensors["gate.bias"])


@pytest.mark.parametrize(
    "extra",
    [
        ["w_noise"],
        ["prompt_embeddings"],
        ["gate.weight", "gate.bias"],
        ["prompt_embeddings", "gate.weight", "w_noise"],
        ["prompt_embeddings", "gate.weight", "gate.bias", "w_noise", "gate.scale"],
        ["prompt_embeddings", "gate.weight", "gate.bias", "head.weight"],
    ],
)
def test_any_other_extra_tensor_is_refused(tmp_path, tensors, extra):
    beside = {name: tensors.get(name, torch.ones(1)) for name in extra}
    dit = {name: tensors[name] for name in tiny_dit().state_dict()}
    unexpected = [extra[-1]] if len(extra) > 3 else sorted(extra)
    for name in ("a.pt", "a.safetensors"):
        path = write_weights(tmp_path / name, {**dit, **beside})
        with pytest.raises(CheckpointError, match="does not fit") as caught:
            load(path)
        assert f"unexpected ({len(unexpected)}): {', '.join(unexpected)}" in caught.value.message
        assert "missing" not in caught.value.message


def test_files_without_a_whole_patch(tmp_path, tensors):
    dit = {name: tensors[name] for name in tiny_dit().state_dict()}
    backbone = load(write_authors_checkpoint(tmp_path / "whole.pt", tensors))
    cases = [
        (["prompt_embeddings", "gate.weight", "gate.bias"], "holds no prompts"),
        (["gate.bias"], "prompt_embeddings, gate.weight, but no gate.bias"),
        (["gate.weight", "gate.bias"], "prompt_embeddings, but no gate.weight, gate.bias"),
        (["prompt_embeddings"], "gate.weight, gate.bias, but no prompt_embeddings"),
    ]
    for left_out, message in cases:
        kept = {name: tensor for name, tensor in tensors.items() if name not in left_out}
        path = write_authors_checkpoint(tmp_path / "a.pt", kept)
        for read in (read_authors, lambda path: imported(path, backbone)):
            with pytest.raises(CheckpointError, match=message) as caught:
                read(path)
            assert str(path) in caught.value.message
    with pytest.raises(CheckpointError, match="holds no prompts"):
        read_authors(write_weights(tmp_path / "plain.pt", dit))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("prompt_embeddings", (2, 16, 16)),
        ("prompt_embeddings", (3, 15, 16)),
        ("prompt_embeddings", (48, 16)),
        ("gate.weight", (16, 16)),
        ("gate.bias", (17,)),
    ],
)
def test_misshapen_parts_are_named(tmp_path, tensors, name, shape):
    path = write_authors_checkpoint(tmp_path / "a.pt", {**tensors, name: torch.ones(shape)})
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        imported(path, load(path))
    assert caught.value.message.count("instead of") == 1
    assert f"{name} {shape} instead of {tuple(tensors[name].shape)}" in caught.value.message


def test_another_backbone_is_refused(tmp_path, tensors):
    path = write_authors_checkpoint(tmp_path / "a.pt", tensors)
    changed = {**tensors, "blocks.1.attn.proj.bias": tensors["blocks.1.attn.proj.bias"].clone()}
    changed["blocks.1.attn.proj.bias"][3] += 1e-4
    with pytest.raises(ConfigError, match="trained together with its prompts") as caught:
        imported(path, load(write_authors_checkpoint(tmp_path / "b.pt", changed)))
    assert f"--backbone {path}" in caught.value.hint
    with pytest.raises(CheckpointError, match=r"unexpected \(10\): blocks.2"):
        imported(path, tiny_dit(depth=2))
    with pytest.raises(CheckpointError, match=r"misshapen .*blocks.0.mlp.fc1"):
        imported(path, tiny_dit(mlp_size=48))
    # a backbone changed in memory after it was loaded
    touched = load(path)
    with torch.no_grad():
        touched.final_layer.linear.bias[0] += 1
    with pytest.raises(ConfigError, match="trained together"):
        imported(path, touched)
