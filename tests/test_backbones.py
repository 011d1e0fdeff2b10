"""From a name, path or hub id to a loaded backbone: sizes from shapes, diffusers folders, digests, what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dmp_cli import backbones
from dmp_cli.backbones import build_backbone, dit, load_backbone, reload_backbone, save_backbone, sources
from dmp_cli.checkpoints import digest_tensors
from dmp_cli.config import CodecRecord, PatchConfig, ScheduleConfig
from dmp_cli.engine import attach, create_patch
from dmp_cli.errors import CheckpointError, ConfigError, PatchError
from tests.builders import call_of, tiny_dit, write_meta_checkpoint

TOLD = {"num_classes": 4, "num_heads": 2}  # what the shapes of a tiny DiT cannot tell
PIXELS = CodecRecord()


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def write(path, tensors):
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return str(path)


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
    loaded = load_backbone(write(tmp_path / f"a{suffix}", made.state_dict()), **TOLD)
    assert loaded.sizes == made.sizes
    assert same(loaded, made)
    assert not loaded.training
    x, timesteps, condition = call_of(made)
    assert torch.equal(loaded(x, timesteps, condition), made(x, timesteps, condition))


@pytest.mark.parametrize(
    ("classes", "null_row"), [(0, False), (1, False), (1000, True)], ids=["no table", "1 row", "1001 rows"]
)
def test_class_rows_that_can_be_read_one_way(tmp_path, classes, null_row):
    made = tiny_dit(num_classes=classes, null_row=null_row)
    loaded = load_backbone(write(tmp_path / "a.pt", made.state_dict()), num_heads=2)
    assert (loaded.num_classes, loaded.has_null) == (classes, null_row)
    assert loaded.sizes == made.sizes


def test_class_rows_that_can_be_read_two_ways(tmp_path):
    path = write(tmp_path / "a.pt", tiny_dit(num_classes=10, null_row=True).state_dict())  # 11 rows
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
    assert load_backbone(write(tmp_path / "a.pt", public.state_dict()), num_classes=4).sizes["num_heads"] == 6
    path = write(tmp_path / "b.pt", tiny_dit().state_dict())
    with pytest.raises(CheckpointError, match="a DiT of width 16") as caught:
        load_backbone(path, num_classes=4)
    assert "--num-heads" in caught.value.hint
    with pytest.raises(CheckpointError, match="--num-heads 3 does not divide the width 16"):
        load_backbone(path, num_classes=4, num_heads=3)


def test_where_the_weights_came_from(tmp_path, monkeypatch):
    made = tiny_dit()
    write(tmp_path / "a.pt", made.state_dict())
    monkeypatch.chdir(tmp_path)
    record = load_backbone("a.pt", **TOLD).record
    assert record.source == str(tmp_path / "a.pt")
    assert record.name is None
    assert record.family == "dit"
    assert record.digest == digest_tensors(made.state_dict(), without=["pos_embed"])


def test_the_schedule_of_a_file_that_does_not_say(tmp_path):
    path = write(tmp_path / "a.pt", tiny_dit().state_dict())
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
        ({"x_embedder__proj__weight": torch.zeros(16, 12)}, "no 2-D convolution"),
        ({"final_layer__linear__weight": torch.zeros(20, 16)}, "output has 5 channels for 3"),
        ({"y_embedder__embedding_table__weight": torch.zeros(5, 8)}, "misshapen"),
        ({"t_embedder__mlp__0__weight": None}, "unknown family: .*Known families: dit"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, changes, words):
    path = write(tmp_path / "a.pt", change(tiny_dit().state_dict(), **changes))
    with pytest.raises(CheckpointError, match=f"(?s){words}") as caught:
        load_backbone(path, **TOLD)
    assert path in caught.value.message


def test_a_width_that_no_dit_has(tmp_path):
    tensors = tiny_dit(hidden_size=18 - 2).state_dict()
    wide = {name: tensor for name, tensor in tensors.items() if name != "x_embedder.proj.weight"}
    path = write(tmp_path / "a.pt", {**wide, "x_embedder.proj.weight": torch.zeros(18, 3, 2, 2)})
    with pytest.raises(CheckpointError, match="sizes that no DiT has"):
        load_backbone(path, **TOLD)


def test_half_precision_files_are_loaded_in_float32(tmp_path):
    made = tiny_dit()
    half = {name: tensor.bfloat16() for name, tensor in made.state_dict().items()}
    loaded = load_backbone(write(tmp_path / "a.safetensors", half), **TOLD)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.blocks[0].attn.qkv.weight, made.blocks[0].attn.qkv.weight.bfloat16().float())


# --- diffusers folders -----------------------------------------------------------------------------------------------


def diffusers_dit(**changes):
    """A random DiT of diffusers whose blocks share their embedders, as a conversion of Meta's weights does."""
    from diffusers import DiTTransformer2DModel

    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 3, "out_channels": 6, "num_layers": 3}
    sizes |= {"sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 4, "norm_num_groups": 1}
    model = DiTTransformer2DModel(**{**sizes, **changes}).eval()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=source))
        for block in model.transformer_blocks[1:]:
            block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    return model


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
    """Otherwise asking which one it was would be idle."""
    diffusers_dit().save_pretrained(tmp_path)
    x, timesteps = torch.ones(1, 3, 8, 8), torch.tensor([500])
    outputs = [
        load_backbone(str(tmp_path), trained_with=t)(x, timesteps, timesteps - 500) for t in ("meta", "diffusers")
    ]
    assert (outputs[0] - outputs[1]).abs().max() > 0.05 * outputs[0].abs().max()


def test_a_diffusers_folder_asks_who_trained_it(tmp_path):
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
    assert same(whole, load_backbone(str(tmp_path / "transformer"), trained_with="meta"))
    assert whole.record.source == str(tmp_path)


def test_embedder_copies_that_differ(tmp_path):
    model = diffusers_dit()
    with torch.no_grad():
        model.transformer_blocks[2].norm1.emb.timestep_embedder.linear_1.bias[0] += 1e-6
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"different copies of t_embedder\.mlp\.0\.bias"):
        load_backbone(str(tmp_path), trained_with="meta")


def edit_config(folder, **changes):
    path = folder / "config.json"
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in fields.items() if value != "absent"}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation_fn": "geglu"}, "activation_fn='geglu' is not known"),
        ({"attention_bias": False}, "attention_bias=False is not known"),
        ({"_class_name": "SD3Transformer2DModel"}, "unknown family: SD3Transformer2DModel"),
        ({"num_layers": 2}, r"unexpected \(10\): blocks\.2"),
        ({"num_layers": 4}, r"missing \(10\): blocks\.3"),
        ({"attention_head_dim": 4}, "misshapen"),
        ({"sample_size": 9}, "sizes that no DiT has: .*patch size 2 does not divide"),
        ({"num_embeds_ada_norm": None}, "sizes that no DiT has: .*num-classes"),
        ({"num_embeds_ada_norm": 1000}, "misshapen"),
        ({"patch_size": "absent"}, "config.json lacks a usable 'patch_size'"),
        ({"in_channels": None}, "config.json lacks"),
    ],
)
def test_a_diffusers_config_that_does_not_fit(tmp_path, changes, words):
    diffusers_dit().save_pretrained(tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=f"(?s){words}") as caught:
        load_backbone(str(tmp_path), trained_with="meta")
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("transformer_blocks.1.attn1.to_k.weight", None, r"unexpected \(2\): .*to_q\.weight, .*to_v\.weight"),
        ("transformer_blocks.1.attn1.to_q.bias", None, r"missing \(1\): blocks\.1\.attn\.qkv\.bias"),
        ("transformer_blocks.0.attn1.to_v.weight", torch.zeros(16, 8), r"missing \(1\): blocks\.0\.attn\.qkv\.weight"),
        ("proj_out_2.bias", torch.zeros(3), r"misshapen \(1\): final_layer\.linear\.bias"),
        ("transformer_blocks.0.attn2.to_q.weight", torch.zeros(1), r"unexpected \(1\): .*attn2\.to_q\.weight"),
    ],
)
def test_a_diffusers_folder_with_wrong_tensors(tmp_path, name, tensor, words):
    diffusers_dit().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = {key: value.clone() for key, value in load_file(file).items()}
    save_file({key: value for key, value in {**tensors, name: tensor}.items() if value is not None}, file)
    with pytest.raises(CheckpointError, match=f"(?s){words}"):
        load_backbone(str(tmp_path), trained_with="meta")


# --- the digest ------------------------------------------------------------------------------------------------------


def test_the_digest_is_the_same_in_every_container(tmp_path):
    diffusers_dit().save_pretrained(tmp_path / "folder")
    loaded = load_backbone(str(tmp_path / "folder"), trained_with="meta")
    tensors = loaded.state_dict()
    write(tmp_path / "bare.pt", dict(reversed(tensors.items())))
    write_meta_checkpoint(tmp_path / "ema.pt", loaded, prefix="module.")
    write(tmp_path / "a.safetensors", tensors)
    save_backbone(tmp_path / "own.safetensors", loaded, codec=PIXELS, training={})
    digests = {
        load_backbone(str(tmp_path / name), **TOLD).record.digest for name in ("bare.pt", "ema.pt", "a.safetensors")
    }
    digests.add(load_backbone(str(tmp_path / "own.safetensors")).record.digest)
    assert digests == {loaded.record.digest}


def digest_of(folder, tensors):
    return load_backbone(write(folder / "changed.pt", tensors), **TOLD).record.digest


def test_the_digest_changes_with_one_bit(tmp_path):
    tensors = tiny_dit().state_dict()
    plain = digest_of(tmp_path, tensors)
    for name in ("blocks.2.mlp.fc2.weight", "y_embedder.embedding_table.weight", "x_embedder.proj.bias"):
        changed = tensors[name].clone()
        changed.view(torch.int32).view(-1)[-1] ^= 1
        assert digest_of(tmp_path, {**tensors, name: changed}) != plain


def test_a_changed_position_table_counts(tmp_path):
    tensors = tiny_dit().state_dict()
    table = tensors["pos_embed"]
    plain = digest_of(tmp_path, tensors)
    assert digest_of(tmp_path, {**tensors, "pos_embed": table + 1e-7}) == plain  # computed by another library
    assert digest_of(tmp_path, {**tensors, "pos_embed": table + 1e-3}) != plain
    changed = table.clone()
    changed[0, 15, 15] += 0.01
    assert digest_of(tmp_path, {**tensors, "pos_embed": changed}) != plain


# --- this tool's own files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"num_classes": 0, "null_row": False}, {"freq_shift": 1.0, "learn_sigma": False}]
)
def test_own_files_need_no_option(tmp_path, changes):
    made = tiny_dit(**changes)
    made.schedule = ScheduleConfig(kind="cosine", num_timesteps=500)
    codec = CodecRecord(kind="vae", source="some/vae", digest="abc")
    save_backbone(tmp_path / "a.safetensors", made, codec=codec, training={"steps_done": 3})
    loaded = load_backbone(str(tmp_path / "a.safetensors"))
    assert same(loaded, made)
    assert loaded.sizes == made.sizes
    assert loaded.schedule == made.schedule
    assert loaded.codec == codec


def test_options_that_contradict_the_file(tmp_path):
    save_backbone(tmp_path / "a.safetensors", tiny_dit(), codec=PIXELS, training={})
    path = str(tmp_path / "a.safetensors")
    load_backbone(path, num_classes=4, num_heads=2, trained_with="meta", schedule="linear")
    for option in ({"num_classes": 5}, {"num_heads": 4}, {"trained_with": "diffusers"}, {"schedule": "cosine"}):
        name = "--" + next(iter(option)).replace("_", "-")
        with pytest.raises(ConfigError, match=f"{name} .* says"):
            load_backbone(path, **option)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"sizes": {"depth": 0}, "schedule": {}}', '{"sizes": {}, "schedule": {"kind": "new"}}']
)
def test_own_files_with_a_bad_header(tmp_path, text):
    save_file(tiny_dit().state_dict(), tmp_path / "a.safetensors", {"dmp.backbone": text})
    with pytest.raises(CheckpointError, match="its header cannot be understood"):
        load_backbone(str(tmp_path / "a.safetensors"))


# --- names and places ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_s(monkeypatch):
    """The size S shrunk to one block, so that a test may write its weights."""
    monkeypatch.setitem(dit._SIZES, "s", (1, 384, 6))
    return tiny_dit(hidden_size=384, num_heads=6, depth=1, patch_size=8, input_size=32, in_channels=4, num_classes=1000)


def test_sizes_of_the_public_names():
    # 1000 classes and a null row, positions counted (paper, Table 1)
    assert build_backbone("DiT-XL/2").num_parameters() == 675_129_632
    assert build_backbone("dit-b2").num_parameters() == 130_512_416
    assert build_backbone("dit-b2", num_classes=1).num_parameters() == 129_744_416
    small = build_backbone("dit-s8", input_size=64, in_channels=3)
    assert (small.sizes["depth"], small.sizes["patch_size"], small.sample_shape) == (12, 8, (3, 64, 64))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", ["dit-s8", "DiT-S/8"])
def test_a_name_finds_weights_in_the_users_folder(small_s, name, suffix):
    place = backbones.checkpoint_folder()
    place.mkdir(parents=True)
    write(place / f"dit-s8{suffix}", small_s.state_dict())
    loaded = load_backbone(name)
    assert same(loaded, small_s)
    assert loaded.record.name == "dit-s8"
    assert loaded.record.source == str(place / f"dit-s8{suffix}")


def test_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DMP_HOME", str(tmp_path))
    assert backbones.checkpoint_folder() == tmp_path / "checkpoints"
    monkeypatch.delenv("DMP_HOME")
    assert backbones.checkpoint_folder().parts[-2:] == ("dmp", "checkpoints")


@pytest.mark.parametrize("name", ["dit-b2", "DiT-L/4", "dit-xl2"])
def test_weights_of_a_name_that_are_nowhere(name):
    with pytest.raises(CheckpointError, match=f"no weights found for {name}") as caught:
        load_backbone(name)
    stem = name.lower().replace("/", "")
    assert "--checkpoint PATH" in caught.value.hint
    assert str(backbones.checkpoint_folder() / f"{stem}.safetensors") in caught.value.hint
    assert ("facebook/DiT-XL-2-256 with --download" in caught.value.hint) == (name == "dit-xl2")


def test_a_name_with_a_checkpoint(small_s, tmp_path):
    path = write(tmp_path / "a.pt", small_s.state_dict())
    assert load_backbone("dit-s8", checkpoint=Path(path)).record.name == "dit-s8"
    for name, words in (("dit-s4", "patch_size 8, not 4"), ("dit-b8", "depth 1, not 12; hidden_size 384, not 768")):
        with pytest.raises(CheckpointError, match=f"a.pt is no {name}: {words}"):
            load_backbone(name, checkpoint=Path(path))
    with pytest.raises(CheckpointError, match="num_heads 12, not 6"):
        load_backbone("dit-s8", checkpoint=Path(path), num_heads=12)


def test_two_files_are_one_too_many(tmp_path):
    path = write(tmp_path / "a.pt", tiny_dit().state_dict())
    assert load_backbone(path, checkpoint=Path(path), **TOLD)
    with pytest.raises(ConfigError, match="two different files"):
        load_backbone(path, checkpoint=tmp_path / "b.pt", **TOLD)


@pytest.mark.parametrize("download", [False, True])
def test_a_hub_id_without_a_network(download):
    with pytest.raises(
        CheckpointError, match=r"someone/some-dit: (not a path here, and not in the local hub cache|.+)"
    ):
        load_backbone("someone/some-dit", download=download)


@pytest.mark.parametrize("name", ["weights/a.pt", "./weights/a", "a/b/c", "weights", "~/weights", "/weights/a"])
def test_a_path_is_never_taken_for_a_hub_id(name, monkeypatch):
    monkeypatch.setattr(sources, "_hub_folder", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match=f"{name.removeprefix('./')} does not exist"):
        load_backbone(name)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A local hub cache, laid out as the hub's own client does, that holds the public XL/2, here a tiny one."""
    from huggingface_hub import constants

    repository = tmp_path / "models--facebook--DiT-XL-2-256"
    snapshot = repository / "snapshots" / "0123abc"
    diffusers_dit().save_pretrained(snapshot / "transformer")
    (snapshot / "model_index.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setitem(dit._SIZES, "xl", (3, 16, 2))


@pytest.mark.parametrize("name", ["dit-xl2", "facebook/DiT-XL-2-256"])
def test_weights_from_the_hub_are_remembered_by_their_id(hub, name):
    loaded = load_backbone(name)
    assert loaded.record.source == "facebook/DiT-XL-2-256"  # a cache folder would exist on this machine only
    assert loaded.record.name == ("dit-xl2" if name == "dit-xl2" else None)
    assert loaded.sizes["freq_shift"] == 0  # known to be Meta's weights
    assert same(reload_backbone(patch_of(loaded).record), loaded)


# --- the backbone of a patch -----------------------------------------------------------------------------------------


def patch_of(backbone):
    return create_patch(backbone, PatchConfig(), codec=PIXELS, image_size=8)


def test_a_patch_finds_its_backbone_again_without_options(tmp_path):
    path = write(tmp_path / "a.pt", tiny_dit().state_dict())
    backbone = load_backbone(path, **TOLD, schedule="cosine", trained_with="diffusers")
    patch = patch_of(backbone)
    again = reload_backbone(patch.record)
    assert same(again, backbone)
    assert again.sizes == backbone.sizes
    assert again.schedule == ScheduleConfig(kind="cosine")
    assert again.record == backbone.record
    attach(again, patch)


def test_a_patch_finds_a_diffusers_folder_again(tmp_path):
    diffusers_dit().save_pretrained(tmp_path / "folder")
    for trained_with in ("meta", "diffusers"):
        backbone = load_backbone(str(tmp_path / "folder"), trained_with=trained_with)
        assert reload_backbone(patch_of(backbone).record).sizes == backbone.sizes


def test_a_backbone_that_has_moved(tmp_path):
    path = Path(write(tmp_path / "a.pt", tiny_dit().state_dict()))
    patch = patch_of(load_backbone(str(path), **TOLD))
    path.rename(tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=f"once at {path}, cannot be read: .*does not exist") as caught:
        reload_backbone(patch.record)
    assert "--checkpoint" in caught.value.hint
    attach(reload_backbone(patch.record, checkpoint=tmp_path / "b.pt"), patch)
    attach(reload_backbone(patch.record, name=str(tmp_path / "b.pt")), patch)
    other = write(tmp_path / "c.pt", tiny_dit(seed=1).state_dict())
    with pytest.raises(PatchError, match="trained on other weights"):
        attach(reload_backbone(patch.record, checkpoint=Path(other)), patch)
    larger = write(tmp_path / "d.pt", tiny_dit(depth=4).state_dict())
    with pytest.raises(CheckpointError, match=r"unexpected \(10\): blocks\.3"):
        reload_backbone(patch.record, checkpoint=Path(larger))


def test_a_named_backbone_is_looked_for_by_its_name_when_it_has_moved(small_s, tmp_path, monkeypatch):
    first = tmp_path / "first" / "checkpoints"
    first.mkdir(parents=True)
    write(first / "dit-s8.pt", small_s.state_dict())
    monkeypatch.setenv("DMP_HOME", str(tmp_path / "first"))
    patch = patch_of(load_backbone("dit-s8"))
    shutil.move(tmp_path / "first", tmp_path / "second")
    with pytest.raises(CheckpointError, match="no weights found for dit-s8"):
        reload_backbone(patch.record)
    monkeypatch.setenv("DMP_HOME", str(tmp_path / "second"))
    assert same(reload_backbone(patch.record), small_s)


def test_the_embedded_name_is_not_given_to_another_file(tmp_path, monkeypatch):
    embedded, other = tmp_path / "embedded.safetensors", tmp_path / "other.safetensors"
    save_backbone(embedded, tiny_dit(), codec=PIXELS, training={})
    save_backbone(other, tiny_dit(seed=1), codec=PIXELS, training={})
    monkeypatch.setitem(sources.EMBEDDED, "digits", embedded)
    patch = patch_of(load_backbone("digits"))
    monkeypatch.setitem(sources.EMBEDDED, "digits", embedded.rename(tmp_path / "installed-elsewhere.safetensors"))
    attach(reload_backbone(patch.record), patch)
    patch = patch_of(load_backbone("digits", checkpoint=other))
    attach(reload_backbone(patch.record), patch)


def test_a_record_of_a_later_program(tmp_path):
    patch = patch_of(load_backbone(write(tmp_path / "a.pt", tiny_dit().state_dict()), **TOLD))
    about = patch.record.backbone.model_copy(update={"sizes": {"depth": 3, "rotary": True}})
    with pytest.raises(CheckpointError, match=r"sizes that no DiT has: .*rotary"):
        reload_backbone(patch.record.model_copy(update={"backbone": about}))


# --- sizes without weights -------------------------------------------------------------------------------------------


def test_sizes_from_a_file(tmp_path):
    made = tiny_dit(mlp_size=64)  # four times the width, as in every DiT of diffusers
    save_backbone(tmp_path / "own.safetensors", made, codec=PIXELS, training={})
    (tmp_path / "sizes.json").write_text(json.dumps(made.sizes))
    diffusers_dit().save_pretrained(tmp_path / "folder")
    for name in ("own.safetensors", "sizes.json", "folder"):
        built = build_backbone(str(tmp_path / name))
        assert built.sizes == made.sizes
        assert built.device.type == "meta"
    built = build_backbone(str(tmp_path / "sizes.json"), device="cpu", num_classes=1, in_channels=None)
    assert (built.num_classes, built.has_null, built.sample_shape) == (1, False, made.sample_shape)


@pytest.mark.parametrize("text", ["", "[1]", '{"depth": 0}', '{"width": 3}'])
def test_files_of_sizes_that_cannot_be_read(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises((CheckpointError, ConfigError)):
        build_backbone(str(tmp_path / "a.json"))


def test_sizes_of_an_unknown_family(tmp_path):
    with pytest.raises(CheckpointError, match="unknown family"):
        build_backbone(write(tmp_path / "a.safetensors", {"a": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="does not exist"):
        build_backbone(str(tmp_path / "b.safetensors"))
