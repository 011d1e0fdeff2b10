"""dmp_cli.runtime.known_numbers: where tensors have shapes alone, whole numbers can still be read."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException

from dmp_cli.runtime.live_memory import LiveMemory, shapes_only


def test_lengths_of_a_mask_are_read() -> None:
    with shapes_only():
        mask = torch.ones(3, 7, dtype=torch.bool)
        mask[1, 4:] = False
        lengths = mask.sum(1)
        assert lengths.tolist() == [7, 4, 7]
        assert int(lengths.max()) == 7
        places = torch.zeros(3, 2, dtype=torch.int32)
        places[:, 1] = torch.arange(3, dtype=torch.int32)
        assert places.flatten().tolist() == [0, 0, 0, 1, 0, 2]


def test_what_depends_on_values_is_not_known() -> None:
    with shapes_only():
        states = torch.ones(3, 7)
        count = torch.zeros(3, dtype=torch.int64)
        assert count.tolist() == [0, 0, 0]
        count.copy_(states.sum(1))  # which has no values
        for unknown in (states.sum(), (states > 0).sum(), count[0]):
            with pytest.raises(DataDependentOutputException):
                unknown.item()


def test_known_numbers_take_no_counted_memory() -> None:
    with shapes_only(), LiveMemory() as memory:
        made = torch.ones(1000, dtype=torch.int64)
        made.tolist()
        assert 8000 <= memory.peak < 8100
