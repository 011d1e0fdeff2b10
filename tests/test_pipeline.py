"""From options to a loaded backbone, patched or bare: what Python users call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dmp_cli
from dmp_cli import NetworkOptions, load_bare, load_patched, save_patch
from dmp_cli.errors import CheckpointError, ConfigError, PatchError
from dmp_cli.pipeline import check_early, load_fresh
from tests.builders import TOLD, call_of, filled_patch, same_weights, tiny_dit, write_meta_checkpoint


@pytest.fixture
def network(tmp_path: Path) -> NetworkOptions:
    """The options that name a tiny DiT in pixel space."""
    return NetworkOptions(backbone=str(write_meta_checkpoint(tmp_path / "tiny.pt", tiny_dit())), vae="none", **TOLD)


def test_a_bare_backbone_is_its_own_denoiser(network: NetworkOptions) -> None:
    loaded = load_bare(network, "cpu")
    assert loaded.denoiser is loaded.backbone
    assert loaded.record is None
    assert same_weights(loaded.backbone, tiny_dit())
    assert loaded.codec.record.kind == "pixel"


def test_a_checkpoint_alone_is_a_name(network: NetworkOptions) -> None:
    alone = NetworkOptions(checkpoint=Path(str(network.backbone)), vae="none", **TOLD)
    assert alone.name == network.backbone
    assert same_weights(load_bare(alone, "cpu").backbone, tiny_dit())


def test_a_patch_comes_with_its_backbone_and_its_strength(network: NetworkOptions, tmp_path: Path) -> None:
    backbone = load_bare(network, "cpu").backbone
    save_patch(tmp_path / "p.safetensors", filled_patch(backbone))
    x, timesteps, labels = call_of(backbone)
    with torch.no_grad():
        bare = backbone(x, timesteps, labels)
        off = load_patched(tmp_path / "p.safetensors", NetworkOptions(), "cpu", strength=0.0)
        on = load_patched(tmp_path / "p.safetensors", NetworkOptions(), "cpu")
        assert torch.equal(off.denoiser(x, timesteps, labels), bare)
        assert not torch.equal(on.denoiser(x, timesteps, labels), bare)
    assert on.record is not None
    assert on.record.backbone.digest == backbone.record.digest  # type: ignore[union-attr]


def test_other_weights_are_refused_unless_forced(network: NetworkOptions, tmp_path: Path) -> None:
    save_patch(tmp_path / "p.safetensors", filled_patch(load_bare(network, "cpu").backbone))
    other = NetworkOptions(checkpoint=write_meta_checkpoint(tmp_path / "other.pt", tiny_dit(seed=1)))
    with pytest.raises(PatchError, match="other weights"):
        load_patched(tmp_path / "p.safetensors", other, "cpu")
    assert load_patched(tmp_path / "p.safetensors", other, "cpu", force=True).record is not None


def test_what_contradicts_the_weights_is_refused(network: NetworkOptions) -> None:
    with pytest.raises(ConfigError, match="no backbone given"):
        load_bare(NetworkOptions(), "cpu")
    with pytest.raises(CheckpointError, match="cannot hold 9 classes"):
        load_bare(network.model_copy(update={"num_classes": 9}), "cpu")
    with pytest.raises(ConfigError, match="--image-size 16"):
        load_bare(network.model_copy(update={"image_size": 16}), "cpu")


def test_a_vae_that_is_not_there_is_named_before_weights_are_read(tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    network = NetworkOptions(backbone=str(tmp_path / "broken.pt"), vae=str(tmp_path / "vae"))
    with pytest.raises(CheckpointError, match="vae does not exist"):
        load_bare(network, "cpu")
    with pytest.raises(CheckpointError, match="vae does not exist"):
        load_fresh(network.model_copy(update={"backbone": "dit-s8"}), "cpu", data_classes=1, seed=0)


def test_a_fresh_backbone_has_the_classes_of_the_data_and_the_size_asked_for() -> None:
    network = NetworkOptions(backbone="dit-s8", vae="none", image_size=16, schedule="cosine")
    loaded = load_fresh(network, "cpu", data_classes=3, seed=1)
    assert loaded.backbone.num_classes == 3
    assert loaded.backbone.sample_shape == (3, 16, 16)
    assert loaded.backbone.schedule.kind == "cosine"


def test_a_name_tells_too_little_about_a_dit_to_be_checked_early(network: NetworkOptions) -> None:
    assert check_early(NetworkOptions(backbone="dit-b2"), None) is None
    assert check_early(NetworkOptions(), None) is None
    with pytest.raises(ConfigError, match="prepend"):
        check_early(NetworkOptions(backbone="sd-v1.5"), dmp_cli.PatchConfig(position="prepend"))
