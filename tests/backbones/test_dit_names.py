"""Renaming the tensors of a diffusers folder: what does not fit is named. Outputs: ``test_dit_weights``."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from dmp_cli.backbones import load_backbone
from dmp_cli.backbones.dit_names import from_diffusers, to_diffusers
from dmp_cli.errors import CheckpointError
from tests.builders import diffusers_dit, tiny_dit


def test_embedder_copies_that_differ(tmp_path):
    model = diffusers_dit()
    with torch.no_grad():
        model.transformer_blocks[2].norm1.emb.timestep_embedder.linear_1.bias[0] += 1e-6
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"different copies of t_embedder\.mlp\.0\.bias"):
        load_backbone(str(tmp_path), trained_with="meta")


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


def test_both_directions_undo_each_other(tmp_path):
    tensors = tiny_dit().state_dict()
    renamed = to_diffusers(tensors, depth=3)
    assert set(renamed) == set(diffusers_dit().state_dict())
    again = from_diffusers(renamed, source=tmp_path)
    assert again.keys() == tensors.keys() - {"pos_embed"}
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in again.items())
