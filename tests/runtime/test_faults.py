"""Faults of a device, told from our own mistakes by what torch raises."""

from __future__ import annotations

import pytest
import torch

from dmp_cli.errors import DMPError
from dmp_cli.runtime.faults import describe_fault, explaining_memory, is_lost_device, is_out_of_memory, measure_peak

CPU = (
    "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 1"
)
NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(CPU),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    MemoryError(),
]
LOST = [
    RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    RuntimeError("HIP error: unspecified launch failure"),
]
OURS = [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), DMPError("CUDA error")]


@pytest.mark.parametrize("error", NO_MEMORY)
def test_memory_that_runs_out(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_lost_device(error)
    told = describe_fault(error)
    assert told is not None
    assert told.startswith("out of memory")
    assert "\n" not in told
    with (
        pytest.raises(DMPError, match=r"^out of memory while drawing\nTake less\.$"),
        explaining_memory("while drawing", "Take less."),
    ):
        raise error


@pytest.mark.parametrize("error", LOST)
def test_a_device_that_is_lost(error: Exception) -> None:
    assert is_lost_device(error)
    assert not is_out_of_memory(error)
    assert describe_fault(error) == f"the device failed: {str(error).splitlines()[0]}"


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="an error of newer versions of torch")
def test_the_error_that_newer_versions_of_torch_raise() -> None:
    assert is_lost_device(torch.AcceleratorError("something new"))


@pytest.mark.parametrize("error", OURS)
def test_our_own_mistakes_are_none(error: Exception) -> None:
    assert describe_fault(error) is None
    with pytest.raises(type(error)) as caught, explaining_memory("while drawing", "Take less."):
        raise error
    assert caught.value is error


def test_what_the_cpu_really_says_when_memory_runs_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_a_cpu_does_not_count_its_memory() -> None:
    assert measure_peak(torch.device("cpu"), lambda: pytest.fail("nothing to measure")) is None
