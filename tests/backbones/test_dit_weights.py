"""DiT weights from files with Meta's names and from diffusers folders: sizes, outputs, and what is refused."""

import json

import pytest
import torch

from dmp_cli.backbones import load_backbone
from dmp_cli.config import ScheduleConfig
from dmp_cli.errors import CheckpointError, ConfigError
from dmp_cli.storage.strict import digest_tensors
from tests.builders import (
    TOLD,
    call_of,
    diffusers_dit,
    same_weights,
    tiny_dit,
    write_weights,
)

# --- Meta-style files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_classes": 4, "null_row": False},
        {"learn_sigma": False, "depth": 1},
        {"in_channels": 4, "patch_size": 4, "input_size": 16, "mlp_size": 24},
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_sizes_are_read_from_shapes(tmp_path, changes, suffix):
    made = tiny_dit(**changes)
    loaded = load_backbone(write_weights(tmp_path / f"a{suffix}", made.state_dict()), **TOLD)
    assert loaded.sizes == made.sizes
    assert same_weights(loaded, made)
    assert not loaded.training
    x, timesteps, condition = call_of(made)
    assert torch.equal(loaded(x, timesteps, condition), made(x, timesteps, condition))


@pytest.mark.parametrize(
    ("classes", "null_row"), [(0, False), (1, False), (1000, True)], ids=["no table", "1 row", "1001 rows"]
)
def test_class_rows_that_can_be_read_one_way(tmp_path, classes, null_row):
    made = tiny_dit(num_classes=classes, null_row=null_row)
    loaded = load_backbone(write_weights(tmp_path / "a.pt", made.state_dict()), num_heads=2)
    assert (loaded.num_classes, loaded.has_null) == (classes, null_row)
    assert loaded.sizes == made.sizes


def test_class_rows_that_can_be_read_two_ways(tmp_path):
    path = write_weights(tmp_path / "a.pt", tiny_dit(num_classes=10, null_row=True).state_dict())  # 11 rows
    with pytest.raises(CheckpointError, match="11 rows: 10 classes and a null row, or 11 classes") as caught:
        load_backbone(path, num_heads=2)
    assert caught.value.hint == "Say which with --num-classes 10 or --num-classes 11."
    for told, null in ((10, True), (11, False)):
        loaded = load_backbone(path, num_heads=2, num_classes=told)
        assert (loaded.num_classes, loaded.has_null) == (told, null)
    with pytest.raises(CheckpointError, match="11 rows, which cannot hold 12 classes"):
        load_backbone(path, num_heads=2, num_classes=12)


def test_heads_of_a_public_width_are_known_and_others_are_asked_for(tmp_path):
    public = tiny_dit(hidden_size=384, num_heads=6, depth=1)
    assert load_backbone(write_weights(tmp_path / "a.pt", public.state_dict()), num_classes=4).sizes["num_heads"] == 6
    path = write_weights(tmp_path / "b.pt", tiny_dit().state_dict())
    with pytest.raises(CheckpointError, match="no public size of DiT has width 16") as caught:
        load_backbone(path, num_classes=4)
    assert "--num-heads" in caught.value.hint
    with pytest.raises(CheckpointError, match="--num-heads 3 does not divide the width 16"):
        load_backbone(path, num_classes=4, num_heads=3)


def test_where_the_weights_came_from(tmp_path, monkeypatch):
    made = tiny_dit()
    write_weights(tmp_path / "a.pt", made.state_dict())
    monkeypatch.chdir(tmp_path)
    record = load_backbone("a.pt", **TOLD).record
    assert record.source == str(tmp_path / "a.pt")
    assert record.name is None
    assert record.family == "dit"
    assert record.digest == digest_tensors(made.state_dict(), without=["pos_embed"])


def test_the_schedule_of_a_file_that_does_not_say(tmp_path):
    path = write_weights(tmp_path / "a.pt", tiny_dit().state_dict())
    assert load_backbone(path, **TOLD).schedule == ScheduleConfig(kind="linear")
    assert load_backbone(path, **TOLD, schedule="cosine").schedule == ScheduleConfig(kind="cosine")
    with pytest.raises(ConfigError, match="--schedule 'sigmoid'"):
        load_backbone(path, **TOLD, schedule="sigmoid")


def change(tensors, **changes):
    """``tensors`` with some replaced, or left out where the new one is None; ``__`` stands for a dot."""
    named = {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in {**tensors, **named}.items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"blocks__1__attn__qkv__weight": None}, r"missing \(1\): blocks.1.attn.qkv.weight"),
        ({"extra__weight": torch.ones(1)}, r"unexpected \(1\): extra.weight"),
        ({"blocks__0__mlp__fc2__bias": torch.ones(3)}, r"misshapen \(1\): blocks.0.mlp.fc2.bias: \(3,\) instead"),
        ({"pos_embed": None}, r"positions pos_embed \(1, N, D\), found none"),
        ({"pos_embed": torch.zeros(16, 16)}, r"found \(16, 16\)"),
        ({"pos_embed": torch.zeros(1, 15, 16)}, "15 positions form no square"),
        ({"x_embedder__proj__weight": torch.zeros(16, 12)}, "not a 2-D convolution"),
        ({"final_layer__linear__weight": torch.zeros(20, 16)}, "output has 5 channels, but its input has 3"),
        ({"y_embedder__embedding_table__weight": torch.zeros(5, 8)}, "misshapen"),
        ({"t_embedder__mlp__0__weight": None}, "unknown family: .*Known families: dit"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, changes, words):
    path = write_weights(tmp_path / "a.pt", change(tiny_dit().state_dict(), **changes))
    with pytest.raises(CheckpointError, match=f"(?s){words}") as caught:
        load_backbone(path, **TOLD)
    assert path in caught.value.message


def test_a_width_that_no_dit_has(tmp_path):
    tensors = tiny_dit(hidden_size=18 - 2).state_dict()
    wide = {name: tensor for name, tensor in tensors.items() if name != "x_embedder.proj.weight"}
    path = write_weights(tmp_path / "a.pt", {**wide, "x_embedder.proj.weight": torch.zeros(18, 3, 2, 2)})
    with pytest.raises(CheckpointError, match="sizes that no DiT has"):
        load_backbone(path, **TOLD)


def test_half_precision_files_are_loaded_in_float32(tmp_path):
    made = tiny_dit()
    half = {name: tensor.bfloat16() for name, tensor in made.state_dict().items()}
    loaded = load_backbone(write_weights(tmp_path / "a.safetensors", half), **TOLD)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.blocks[0].attn.qkv.weight, made.blocks[0].attn.qkv.weight.bfloat16().float())


# --- diffusers folders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trained_with", "freq_shift", "norm_eps"), [("meta", 0, 1e-6), ("diffusers", 1, 1e-5), ("diffusers", 1, 1e-3)]
)
@pytest.mark.parametrize("learns_sigma", [True, False])
def test_a_diffusers_folder_computes_what_diffusers_computes(
    tmp_path, trained_with, freq_shift, norm_eps, learns_sigma
):
    model = diffusers_dit(norm_eps=norm_eps, out_channels=6 if learns_sigma else None)
    model.save_pretrained(tmp_path)
    for block in model.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = freq_shift
    loaded = load_backbone(str(tmp_path), trained_with=trained_with)
    assert (loaded.num_classes, loaded.has_null, loaded.learns_sigma) == (4, True, learns_sigma)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    timesteps, labels = torch.tensor([0, 10, 500, 999]), torch.tensor([0, 3, 4, 1])
    with torch.no_grad():
        expected = model(x, timestep=timesteps, class_labels=labels).sample
        difference = loaded(x, timesteps, labels) - expected
    for row in range(4):
        assert difference[row].abs().max() <= 2e-5 * expected[row].abs().max()


def test_the_two_arithmetics_differ(tmp_path):
    """If they did not differ, the option --trained-with would be pointless."""
    diffusers_dit().save_pretrained(tmp_path)
    x, timesteps = torch.ones(1, 3, 8, 8), torch.tensor([500])
    outputs = [
        load_backbone(str(tmp_path), trained_with=t)(x, timesteps, timesteps - 500) for t in ("meta", "diffusers")
    ]
    assert (outputs[0] - outputs[1]).abs().max() > 0.05 * outputs[0].abs().max()


def test_a_diffusers_folder_needs_trained_with(tmp_path):
    diffusers_dit().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="does not say which code trained it") as caught:
        load_backbone(str(tmp_path))
    assert "--trained-with meta" in caught.value.hint
    with pytest.raises(ConfigError, match="--trained-with 'pytorch'"):
        load_backbone(str(tmp_path), trained_with="pytorch")


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_a_pipeline_folder(tmp_path, safe):
    diffusers_dit().save_pretrained(tmp_path / "transformer", safe_serialization=safe)
    (tmp_path / "model_index.json").write_text('{"_class_name": "DiTPipeline"}')
    whole = load_backbone(str(tmp_path), trained_with="meta")
    assert same_weights(whole, load_backbone(str(tmp_path / "transformer"), trained_with="meta"))
    assert whole.record.source == str(tmp_path)


def edit_config(folder, **changes):
    path = folder / "config.json"
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in fields.items() if value != "absent"}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation_fn": "geglu"}, "activation_fn='geglu' is not supported"),
        ({"attention_bias": False}, "attention_bias=False is not supported"),
        ({"_class_name": "LTXVideoTransformer3DModel"}, "unknown family: LTXVideoTransformer3DModel"),
        ({"num_layers": 2}, r"unexpected \(10\): blocks\.2"),
        ({"num_layers": 4}, r"missing \(10\): blocks\.3"),
        ({"attention_head_dim": 4}, "misshapen"),
        ({"sample_size": 9}, "sizes that no DiT has: .*patch size 2 does not divide"),
        ({"num_embeds_ada_norm": None}, "sizes that no DiT has: .*num-classes"),
        ({"num_embeds_ada_norm": 1000}, "misshapen"),
        ({"patch_size": "absent"}, "config.json has no usable 'patch_size'"),
        ({"in_channels": None}, "config.json has no usable"),
    ],
)
def test_a_diffusers_config_that_does_not_fit(tmp_path, changes, words):
    diffusers_dit().save_pretrained(tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=f"(?s){words}") as caught:
        load_backbone(str(tmp_path), trained_with="meta")
    assert str(tmp_path) in caught.value.message
