"""Tensors that are no weights: NaN, infinity, integers. The tensor is named before any training begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dmp_cli.errors import CheckpointError
from dmp_cli.storage.strict import load_strictly


def layer() -> nn.Linear:
    return nn.Linear(2, 2)


def tensors_with(weight: Tensor) -> dict[str, Tensor]:
    return {"weight": weight, "bias": torch.zeros(2)}


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (torch.tensor([[0.0, float("nan")], [0.0, 0.0]]), "not all finite: NaN in weight"),
        (torch.tensor([[0.0, float("-inf")], [0.0, 0.0]]), "not all finite: infinity in weight"),
        (torch.tensor([[0.0, float("inf")], [0.0, 0.0]]).half(), "not all finite: infinity in weight"),
        (torch.full((2, 2), 1e300, dtype=torch.float64), "not all finite: infinity in weight"),
        (torch.full((2, 2), float("nan")).to(torch.float8_e4m3fn), "not all finite: NaN in weight"),
        (torch.ones(2, 2, dtype=torch.int8), "weight holds int8; weights are floating-point"),
        (torch.ones(2, 2, dtype=torch.uint8), "weight holds uint8"),
        (torch.ones(2, 2, dtype=torch.bool), "weight holds bool"),
        (torch.ones(2, 2, dtype=torch.complex64), "weight holds complex64"),
    ],
    ids=["nan", "-inf", "half inf", "too large", "float8 nan", "int8", "uint8", "bool", "complex"],
)
def test_what_is_no_weight_is_named(weight: Tensor, words: str) -> None:
    module = layer()
    before = module.weight.clone()
    with pytest.raises(CheckpointError, match=f"^a.pt: .*{words}"):
        load_strictly(module, tensors_with(weight), source=Path("a.pt"))
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_every_floating_type_is_read(dtype: torch.dtype) -> None:
    module = layer()
    load_strictly(module, tensors_with(torch.full((2, 2), 0.5, dtype=dtype)), source=Path("a.pt"))
    assert torch.equal(module.weight, torch.full((2, 2), 0.5))


def test_how_many_tensors_are_not_finite() -> None:
    bad = {"weight": torch.full((2, 2), float("nan")), "bias": torch.full((2,), float("nan"))}
    with pytest.raises(CheckpointError, match="NaN in weight, … and 1 more"):
        load_strictly(layer(), bad, source=Path("a.pt"))
