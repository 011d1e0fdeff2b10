"""What torch raises when a device has no memory left, or is lost, told apart from our own mistakes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from ..errors import DMPError

_NO_MEMORY = ("out of memory", "not enough memory", "DefaultCPUAllocator", "_ALLOC_FAILED")
_LOST = ("CUDA error", "HIP error", "CUDNN_STATUS_", "CUBLAS_STATUS_", "cuDNN error", "device-side assert")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that an allocation failed, on a GPU or in main memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def is_lost_device(error: BaseException) -> bool:
    """Whether ``error`` says that the device failed. From then on every call of it fails."""
    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    failed = getattr(torch, "AcceleratorError", ())  # of torch 2.8 and later
    return isinstance(error, failed) or any(words in str(error) for words in _LOST)


def describe_fault(error: BaseException) -> str | None:
    """What happened to the device, in one sentence; None: ``error`` is no fault of a device."""
    lines = str(error).strip().splitlines()
    first = f": {lines[0]}" if lines else ""
    if is_out_of_memory(error):
        return f"out of memory{first}"
    return f"the device failed{first}" if is_lost_device(error) else None


@contextlib.contextmanager
def explaining_memory(message: str, hint: str) -> Iterator[None]:
    """Context that raises DMPError with ``message`` and ``hint`` where memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DMPError(f"out of memory {message}", hint=hint) from error


def measure_peak(device: torch.device, call: Callable[[], object]) -> int | None:
    """Bytes that ``call`` takes at its peak, beyond what is held before; None where the device does not count them."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still allocate on a GPU, beyond what its tensors hold."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def let_go_of_memory(device: torch.device) -> None:
    """Give back what torch keeps of freed tensors, in pieces that may be too small for the next ones."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
