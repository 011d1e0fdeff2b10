"""Folders of diffusers as published: older classes, variants, shards, averages, links. Against diffusers' loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones import load_backbone, peek_backbone, reload_backbone
from dmp_cli.config import PatchConfig
from dmp_cli.errors import CheckpointError
from dmp_cli.patching.attachment import create_patch
from dmp_cli.storage import read_weights
from tests.backbones.pipelines import tiny_pixart, tiny_plain_unet, tiny_unet, write_pipeline, write_scheduler
from tests.builders import PIXELS, diffusers_dit, same_weights
from tests.zoo import diffusers_folders as zoo


def write_unet(folder: Path, **changes: Any) -> Path:
    tiny_plain_unet(**changes).save_pretrained(folder)
    write_scheduler(folder)
    return folder


def assert_same(folder: Path, model: Any, **options: Any) -> Any:
    loaded = load_backbone(str(folder), **options)
    assert same_weights(loaded.core, model)
    assert loaded.remarks == ()
    return loaded


def test_the_public_folder_of_dit(tmp_path: Path) -> None:
    diffusers_dit().save_pretrained(tmp_path / "now")
    diffusers_dit().save_pretrained(tmp_path / "then")
    zoo.change_config(tmp_path / "then", **zoo.DIT_LEGACY)
    now, then = (load_backbone(str(tmp_path / name), trained_with="meta") for name in ("now", "then"))
    assert then.sizes == now.sizes
    assert same_weights(then, now)
    assert then.remarks == now.remarks


def test_the_public_folder_of_pixart(tmp_path: Path) -> None:
    model = tiny_pixart()
    write_pipeline(tmp_path / "now", model, text="t5")
    write_pipeline(tmp_path / "then", model, text="t5")
    zoo.change_config(tmp_path / "then" / "transformer", **zoo.PIXART_LEGACY)
    then = assert_same(tmp_path / "then", model)
    assert then.sizes == load_backbone(str(tmp_path / "now")).sizes
    early = peek_backbone(str(tmp_path / "then"))
    assert early is not None
    assert early.sizes == then.sizes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_vector_embeds": 8}, "DiTTransformer2DModel cannot be: it has num_vector_embeds 8"),
        ({"only_cross_attention": True}, "it has only_cross_attention True"),
        ({"cross_attention_dim": 16}, "it has cross_attention_dim 16"),
        ({"norm_type": "layer_norm"}, "unknown family: Transformer2DModel"),
    ],
)
def test_another_transformer_of_that_class_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    diffusers_dit().save_pretrained(tmp_path)
    zoo.change_config(tmp_path, **{**zoo.DIT_LEGACY, **changes})
    with pytest.raises(CheckpointError, match=words):
        load_backbone(str(tmp_path), trained_with="meta")


def test_fields_that_the_class_lacks_are_named_once(tmp_path: Path) -> None:
    folder = zoo.change_config(write_unet(tmp_path / "unet"), new_field=3, another=None, _private=1)
    loaded = load_backbone(str(folder))
    assert loaded.remarks == (f"{folder}: fields that a UNet2DModel does not know are passed over: new_field 3",)
    assert loaded.sizes == load_backbone(str(write_unet(tmp_path / "plain"))).sizes
    diffusers_dit().save_pretrained(tmp_path / "dit")
    zoo.change_config(tmp_path / "dit", new_field=3)
    assert "new_field 3" in load_backbone(str(tmp_path / "dit"), trained_with="meta").remarks[0]


def test_averages_of_diffusers_training_scripts(tmp_path: Path) -> None:
    write_unet(tmp_path / "checkpoint-500" / "unet", seed=1)
    write_unet(tmp_path / "checkpoint-500" / "unet_ema")
    zoo.change_config(tmp_path / "checkpoint-500" / "unet_ema", **zoo.EMA_FIELDS)
    assert_same(tmp_path / "checkpoint-500", tiny_plain_unet())
    assert_same(tmp_path / "checkpoint-500" / "unet_ema", tiny_plain_unet())
    assert_same(tmp_path / "checkpoint-500" / "unet", tiny_plain_unet(seed=1))


@pytest.mark.parametrize(
    ("variant", "suffix"), [("fp16", ".safetensors"), ("bf16", ".safetensors"), ("fp16", ".bin"), ("non_ema", ".bin")]
)
def test_a_variant_alone(tmp_path: Path, variant: str, suffix: str) -> None:
    zoo.as_variant(write_unet(tmp_path / "unet"), variant, suffix=suffix)
    assert_same(tmp_path / "unet", tiny_plain_unet().half())


def test_the_average_comes_before_the_weights_beside_it(tmp_path: Path) -> None:
    zoo.as_variant(write_unet(tmp_path / "unet", seed=1), "non_ema", dtype=torch.float32)
    torch.save(tiny_plain_unet().state_dict(), tmp_path / "unet" / f"{zoo.STEM}.bin")
    assert_same(tmp_path / "unet", tiny_plain_unet())


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards(tmp_path: Path, variant: str | None) -> None:
    zoo.shard(write_unet(tmp_path / "unet"), variant=variant)
    assert_same(tmp_path / "unet", tiny_plain_unet())
    lost = next(path for path in (tmp_path / "unet").glob("*-00002-of-00002*"))
    lost.unlink()
    with pytest.raises(CheckpointError, match=f"unet lacks 1 of the 2 weight files .* such as {lost.name}"):
        load_backbone(str(tmp_path / "unet"))


def test_older_names_of_attention_layers(tmp_path: Path) -> None:
    """As in google/ddpm-cifar10-32, whose weights were saved by diffusers 0.1."""
    folder, model = write_unet(tmp_path / "unet"), tiny_plain_unet()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in model.state_dict().items():
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        tensors[name] = tensor
    assert any("proj_attn" in name for name in tensors)
    (folder / f"{zoo.STEM}.safetensors").unlink()
    torch.save(tensors, folder / f"{zoo.STEM}.bin")
    theirs = type(model).from_pretrained(folder, low_cpu_mem_usage=False, use_safetensors=False)
    loaded = assert_same(folder, model)
    x, timesteps = torch.randn(2, 3, 8, 8), torch.tensor([3, 900])
    with torch.no_grad():
        torch.testing.assert_close(loaded(x, timesteps), theirs(x, timesteps).sample, rtol=1e-6, atol=1e-6)


def test_a_snapshot_of_the_hubs_cache_is_found_again(tmp_path: Path) -> None:
    write_pipeline(tmp_path / "pipeline", tiny_unet())
    snapshot = zoo.as_hub_cache(tmp_path / "pipeline", tmp_path / "models--someone--small")
    loaded = assert_same(snapshot, tiny_unet())
    assert loaded.record.source == str(snapshot)
    assert loaded.codec.source == str(snapshot)
    loaded.captions.indices(["a fox"])
    record = create_patch(loaded, PatchConfig(), codec=PIXELS, image_size=32).record
    assert record is not None
    assert same_weights(reload_backbone(record), loaded)


def test_a_link_to_a_file_without_a_suffix_is_recorded_as_it_was_given(tmp_path: Path) -> None:
    """As DVC and datalad keep a file."""
    blob, link = tmp_path / "cache" / "5f" / "1d0c", tmp_path / "weights.safetensors"
    diffusers_dit().save_pretrained(tmp_path / "dit")
    blob.parent.mkdir(parents=True)
    (tmp_path / "dit" / f"{zoo.STEM}.safetensors").rename(blob)
    link.symlink_to(blob)
    assert read_weights(link).path == link
    assert read_weights(blob).tensors.keys() == read_weights(link).tensors.keys()
