"""Loading tensors into a module strictly, and the digest that identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, DMPError


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Load ``tensors`` into ``module`` as float32: either all of them, or none when names or shapes do not match.

    Raises:
        CheckpointError: some are missing, unexpected or misshapen, and the message lists all three kinds; or one holds
            integers, NaN or infinity.
    """
    expected = module.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    misshapen = [
        f"{name}: {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
    if any(names for _, names in problems):
        raise CheckpointError(
            f"{source} does not fit the backbone; nothing was loaded",
            details=[f"  {kind} ({len(names)}): {first_names(names)}" for kind, names in problems if names],
            hint="Give the checkpoint of exactly this backbone, or let its sizes be read from the file alone.",
        )
    # Copies, because tensors may be views of a mapped file: overwriting that file would change the module.
    check_floating(tensors, source)
    own = {name: tensor.to(torch.float32, copy=True).contiguous() for name, tensor in tensors.items()}
    check_finite(own, source=source)
    module.load_state_dict(own, strict=True, assign=True)


def check_floating(tensors: Mapping[str, Tensor], source: object) -> None:
    """Raise CheckpointError, naming it, if a tensor is not floating-point: its scales would have to be known."""
    wrong = [f"{name} holds {str(t.dtype).removeprefix('torch.')}" for name, t in tensors.items() if not _is_real(t)]
    if wrong:
        raise CheckpointError(
            f"{source}: {first_names(wrong, 1)}; weights are floating-point numbers",
            hint="It may be quantized, which is not supported. Give the weights in fp32, bf16 or fp16.",
        )


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout == torch.strided


def check_finite(tensors: Mapping[str, Tensor], *, source: object, kind: type[DMPError] = CheckpointError) -> None:
    """Raise ``kind``, naming the tensor, if a floating-point tensor holds NaN or infinity."""
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        value = "NaN" if tensors[broken[0]].isnan().any() else "infinity"
        raise kind(
            f"{source}: its weights are not all finite: {value} in {first_names(broken, 1)}",
            hint="Its training diverged, or its conversion to half precision overflowed. Give another checkpoint.",
        )


def digest_tensors(tensors: Mapping[str, Tensor], *, without: Iterable[str] = ()) -> str:
    """SHA-256 over names, shapes, types and values, sorted by name: equal weights have it in any kind of file.

    Tensors whose name is in ``without`` are left out.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors.keys() - set(without)):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def first_names(names: list[str], limit: int = 6) -> str:
    """The first ``limit`` of ``names``, and how many more there are."""
    shown = ", ".join(names[:limit])
    return f"{shown}, … and {len(names) - limit} more" if len(names) > limit else shown
