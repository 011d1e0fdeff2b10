"""LoRA adapters for tests: a recorded tiny backbone, and adapters with weights that show in the output."""

import torch

from dmp_cli.config import BackboneRecord
from dmp_cli.patching.identity import backbone_digest
from dmp_cli.patching.lora import create_adapter
from tests.builders import tiny_dit


def known(**changes):
    """A tiny DiT with a record of where its weights came from."""
    backbone = tiny_dit(**changes)
    digest = backbone_digest(backbone)
    backbone.record = BackboneRecord(family="dit", sizes=backbone.sizes, source="here.pt", digest=digest)
    return backbone


def create(backbone, *, rank=4, targets=None, seed=0, is_dora=False):
    """A new adapter in ``backbone``."""
    return create_adapter(backbone, rank=rank, targets=targets, seed=seed, is_dora=is_dora)


def fill(adapter, seed=1):
    """Fill both matrices of every layer with random numbers, none of them zero; lengths become up to twice as large."""
    source = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters.values():
        if parameter.dim() == 1:
            parameter.data.mul_(1 + torch.rand(parameter.shape, generator=source))
        else:
            parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=source))
