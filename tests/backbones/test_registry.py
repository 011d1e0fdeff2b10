"""The registry: backbones by name, path or hub id, and the backbone that a patch belongs to."""

import shutil
from pathlib import Path

import pytest

from dmp_cli.backbones import dit_sizes, load_backbone, reload_backbone, sources
from dmp_cli.backbones.native_file import save_backbone
from dmp_cli.backbones.sources import checkpoint_folder
from dmp_cli.config import PatchConfig, ScheduleConfig
from dmp_cli.errors import CheckpointError, ConfigError, PatchError
from dmp_cli.patching.attachment import attach, create_patch
from tests.builders import PIXELS, TOLD, diffusers_dit, same_weights, tiny_dit, write_weights


def test_options_that_contradict_the_file(tmp_path):
    save_backbone(tmp_path / "a.safetensors", tiny_dit(), codec=PIXELS, training={})
    path = str(tmp_path / "a.safetensors")
    load_backbone(path, num_classes=4, num_heads=2, trained_with="meta", schedule="linear")
    for option in ({"num_classes": 5}, {"num_heads": 4}, {"trained_with": "diffusers"}, {"schedule": "cosine"}):
        name = "--" + next(iter(option)).replace("_", "-")
        with pytest.raises(ConfigError, match=f"{name} .* says"):
            load_backbone(path, **option)


# --- names and places ------------------------------------------------------------------------------------------------


@pytest.fixture
def small_s(monkeypatch):
    """The size S shrunk to one block, so that a test may write its weights."""
    monkeypatch.setitem(dit_sizes._SIZES, "s", (1, 384, 6))
    return tiny_dit(hidden_size=384, num_heads=6, depth=1, patch_size=8, input_size=32, in_channels=4, num_classes=1000)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", ["dit-s8", "DiT-S/8"])
def test_a_name_finds_weights_in_the_users_folder(small_s, name, suffix):
    place = checkpoint_folder()
    place.mkdir(parents=True)
    write_weights(place / f"dit-s8{suffix}", small_s.state_dict())
    loaded = load_backbone(name)
    assert same_weights(loaded, small_s)
    assert loaded.record.name == "dit-s8"
    assert loaded.record.source == str(place / f"dit-s8{suffix}")


def test_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DMP_HOME", str(tmp_path))
    assert checkpoint_folder() == tmp_path / "checkpoints"
    monkeypatch.delenv("DMP_HOME")
    assert checkpoint_folder().parts[-2:] == ("dmp", "checkpoints")


@pytest.mark.parametrize("name", ["dit-b2", "DiT-L/4", "dit-xl2"])
def test_a_name_without_weights_says_where_to_put_them(name):
    with pytest.raises(CheckpointError, match=f"no weights found for {name}") as caught:
        load_backbone(name)
    stem = name.lower().replace("/", "")
    assert "--checkpoint PATH" in caught.value.hint
    assert str(checkpoint_folder() / f"{stem}.safetensors") in caught.value.hint
    assert ("facebook/DiT-XL-2-256 with --download" in caught.value.hint) == (name == "dit-xl2")


def test_a_name_with_a_checkpoint(small_s, tmp_path):
    path = write_weights(tmp_path / "a.pt", small_s.state_dict())
    assert load_backbone("dit-s8", checkpoint=Path(path)).record.name == "dit-s8"
    for name, words in (("dit-s4", "patch_size 8, not 4"), ("dit-b8", "depth 1, not 12; hidden_size 384, not 768")):
        with pytest.raises(CheckpointError, match=f"a.pt is not a {name}: {words}"):
            load_backbone(name, checkpoint=Path(path))
    with pytest.raises(CheckpointError, match="num_heads 12, not 6"):
        load_backbone("dit-s8", checkpoint=Path(path), num_heads=12)


def test_two_different_files_are_refused(tmp_path):
    path = write_weights(tmp_path / "a.pt", tiny_dit().state_dict())
    assert load_backbone(path, checkpoint=Path(path), **TOLD)
    with pytest.raises(ConfigError, match="two different files"):
        load_backbone(path, checkpoint=tmp_path / "b.pt", **TOLD)


@pytest.mark.parametrize("download", [False, True])
def test_a_hub_id_without_a_network(download):
    with pytest.raises(
        CheckpointError, match=r"someone/some-dit(: .+| is neither a path here nor in the local hub cache)"
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
    monkeypatch.setitem(dit_sizes._SIZES, "xl", (3, 16, 2))


@pytest.mark.parametrize("name", ["dit-xl2", "facebook/DiT-XL-2-256"])
def test_weights_from_the_hub_are_remembered_by_their_id(hub, name):
    loaded = load_backbone(name)
    assert loaded.record.source == "facebook/DiT-XL-2-256"  # a cache folder would exist on this machine only
    assert loaded.record.name == ("dit-xl2" if name == "dit-xl2" else None)
    assert loaded.sizes["freq_shift"] == 0  # known to be Meta's weights
    assert same_weights(reload_backbone(patch_of(loaded).record), loaded)


# --- the backbone of a patch -----------------------------------------------------------------------------------------


def patch_of(backbone):
    return create_patch(backbone, PatchConfig(), codec=PIXELS, image_size=8)


def test_a_patch_finds_its_backbone_again_without_options(tmp_path):
    path = write_weights(tmp_path / "a.pt", tiny_dit().state_dict())
    backbone = load_backbone(path, **TOLD, schedule="cosine", trained_with="diffusers")
    patch = patch_of(backbone)
    again = reload_backbone(patch.record)
    assert same_weights(again, backbone)
    assert again.sizes == backbone.sizes
    assert again.schedule == ScheduleConfig(kind="cosine")
    assert again.record == backbone.record
    attach(again, patch).detach()
    other = ScheduleConfig(beta_end=0.01, num_timesteps=500)
    assert reload_backbone(patch.record.model_copy(update={"schedule": other})).schedule == other


def test_a_patch_finds_a_diffusers_folder_again(tmp_path):
    diffusers_dit().save_pretrained(tmp_path / "folder")
    for trained_with in ("meta", "diffusers"):
        backbone = load_backbone(str(tmp_path / "folder"), trained_with=trained_with)
        assert reload_backbone(patch_of(backbone).record).sizes == backbone.sizes


def test_a_backbone_that_has_moved(tmp_path):
    path = Path(write_weights(tmp_path / "a.pt", tiny_dit().state_dict()))
    patch = patch_of(load_backbone(str(path), **TOLD))
    path.rename(tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=f"last seen at {path}: .*does not exist") as caught:
        reload_backbone(patch.record)
    assert "--checkpoint" in caught.value.hint
    attach(reload_backbone(patch.record, checkpoint=tmp_path / "b.pt"), patch)
    attach(reload_backbone(patch.record, name=str(tmp_path / "b.pt")), patch)
    other = write_weights(tmp_path / "c.pt", tiny_dit(seed=1).state_dict())
    with pytest.raises(PatchError, match="trained on other weights"):
        attach(reload_backbone(patch.record, checkpoint=Path(other)), patch)
    larger = write_weights(tmp_path / "d.pt", tiny_dit(depth=4).state_dict())
    with pytest.raises(CheckpointError, match=r"unexpected \(10\): blocks\.3"):
        reload_backbone(patch.record, checkpoint=Path(larger))


def test_a_named_backbone_is_looked_for_by_its_name_when_it_has_moved(small_s, tmp_path, monkeypatch):
    first = tmp_path / "first" / "checkpoints"
    first.mkdir(parents=True)
    write_weights(first / "dit-s8.pt", small_s.state_dict())
    monkeypatch.setenv("DMP_HOME", str(tmp_path / "first"))
    patch = patch_of(load_backbone("dit-s8"))
    shutil.move(tmp_path / "first", tmp_path / "second")
    with pytest.raises(CheckpointError, match="no weights found for dit-s8"):
        reload_backbone(patch.record)
    monkeypatch.setenv("DMP_HOME", str(tmp_path / "second"))
    assert same_weights(reload_backbone(patch.record), small_s)


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


def test_a_record_with_unknown_sizes_is_refused(tmp_path):
    patch = patch_of(load_backbone(write_weights(tmp_path / "a.pt", tiny_dit().state_dict()), **TOLD))
    about = patch.record.backbone.model_copy(update={"sizes": {"depth": 3, "rotary": True}})
    with pytest.raises(CheckpointError, match=r"sizes that no DiT has: .*rotary"):
        reload_backbone(patch.record.model_copy(update={"backbone": about}))
