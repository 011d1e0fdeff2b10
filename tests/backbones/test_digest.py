"""The digest of a DiT: the same in every file format, another for any changed weight."""

import torch

from dmp_cli.backbones import load_backbone
from dmp_cli.backbones.native_file import save_backbone
from tests.builders import PIXELS, TOLD, diffusers_dit, tiny_dit, write_meta_checkpoint, write_weights


def test_the_digest_is_the_same_in_every_container(tmp_path):
    diffusers_dit().save_pretrained(tmp_path / "folder")
    loaded = load_backbone(str(tmp_path / "folder"), trained_with="meta")
    tensors = loaded.state_dict()
    write_weights(tmp_path / "bare.pt", dict(reversed(tensors.items())))
    write_meta_checkpoint(tmp_path / "ema.pt", loaded, prefix="module.")
    write_weights(tmp_path / "a.safetensors", tensors)
    save_backbone(tmp_path / "own.safetensors", loaded, codec=PIXELS, training={})
    digests = {
        load_backbone(str(tmp_path / name), **TOLD).record.digest for name in ("bare.pt", "ema.pt", "a.safetensors")
    }
    digests.add(load_backbone(str(tmp_path / "own.safetensors")).record.digest)
    assert digests == {loaded.record.digest}


def digest_of(folder, tensors):
    return load_backbone(write_weights(folder / "changed.pt", tensors), **TOLD).record.digest


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
