"""The two naming schemes of a DiT's tensors: Meta's, which this tool uses, and that of diffusers.

diffusers keeps a copy of the embedders in every block, splits the attention into query, key and value layers, and
stores no positions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError

# Names of layers, Meta's -> diffusers'.
_TOP = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
_SHARED = {  # diffusers has a copy in every block
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}
_BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
_QKV = ("attn1.to_q", "attn1.to_k", "attn1.to_v")  # parts of attn.qkv, in this order

_TOP_BACK, _SHARED_BACK, _BLOCK_BACK = ({new: old for old, new in names.items()} for names in (_TOP, _SHARED, _BLOCK))


def to_diffusers(tensors: Mapping[str, Tensor], *, depth: int) -> dict[str, Tensor]:
    """Rename the tensors of a DiT with ``depth`` blocks from Meta's names to diffusers'; leaves the positions out."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")  # kind: weight or bias
        if layer in _TOP:
            renamed[f"{_TOP[layer]}.{kind}"] = tensor
        elif layer in _SHARED:
            for block in range(depth):
                renamed[f"transformer_blocks.{block}.{_SHARED[layer]}.{kind}"] = tensor.clone()
        elif layer.startswith("blocks."):
            _, index, inner = layer.split(".", 2)
            prefix = f"transformer_blocks.{index}"
            if inner == "attn.qkv":
                for part, own in zip(_QKV, tensor.chunk(3), strict=True):
                    renamed[f"{prefix}.{part}.{kind}"] = own
            else:
                renamed[f"{prefix}.{_BLOCK[inner]}.{kind}"] = tensor
    return renamed


def from_diffusers(tensors: Mapping[str, Tensor], *, source: Path) -> dict[str, Tensor]:
    """Rename the tensors of a DiT from diffusers' names to Meta's.

    Unknown names stay as they are, so that strict loading reports them.

    Raises:
        CheckpointError: the blocks hold different copies of an embedder; the message names the file ``source``.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")  # kind: weight or bias
        block = re.match(r"transformer_blocks\.(\d+)\.(.+)", layer)
        if layer in _TOP_BACK:
            renamed[f"{_TOP_BACK[layer]}.{kind}"] = tensor
        elif block and block[2] in _SHARED_BACK:
            _keep_one_copy(renamed, f"{_SHARED_BACK[block[2]]}.{kind}", tensor, source=source)
        elif block and block[2] in _BLOCK_BACK:
            renamed[f"blocks.{block[1]}.{_BLOCK_BACK[block[2]]}.{kind}"] = tensor
        elif block and block[2] in _QKV:
            target = f"blocks.{block[1]}.attn.qkv.{kind}"
            if target not in renamed:
                parts = [f"transformer_blocks.{block[1]}.{part}.{kind}" for part in _QKV]
                renamed |= _join_parts(tensors, parts, target=target)
        else:
            renamed[name] = tensor
    return renamed


def _join_parts(tensors: Mapping[str, Tensor], names: list[str], *, target: str) -> dict[str, Tensor]:
    """Join query, key and value as ``target``, or leave misfits as they are: strict loading then reports them."""
    parts = {name: tensors[name] for name in names if name in tensors}
    joinable = len(parts) == len(names) and len({tensor.shape for tensor in parts.values()}) == 1
    return {target: torch.cat(list(parts.values()))} if joinable else parts


def _keep_one_copy(renamed: dict[str, Tensor], name: str, tensor: Tensor, *, source: Path) -> None:
    # The copies of an embedder must be equal, because Meta's names have room for one only.
    if not torch.equal(renamed.setdefault(name, tensor), tensor):
        raise CheckpointError(f"{source}: its blocks hold different copies of {name}; a DiT has one for all blocks")
