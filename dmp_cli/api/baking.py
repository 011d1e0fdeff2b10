"""``merge``: what a patch adds at each timestep of a sampler, as a table for code that has no gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import SampleConfig, build
from ..errors import PatchError

if TYPE_CHECKING:
    from torch import Tensor

    from ..patching import PatchedBackbone


def merge(
    patched: PatchedBackbone,
    path: str | Path | None = None,
    *,
    sampler: str | None = None,
    steps: int | None = None,
    dense: bool = False,
) -> dict[str, Tensor]:
    """Bake the patch for the timesteps of one sampler: what it adds to each block, without its gate.

    A mixture changes with the timestep, so it cannot be merged into weights as a LoRA can; the table is exact at the
    timesteps of this sampler and of this number of steps, and says nothing of others, of a gate that reads the class,
    or of low-rank experts, which are refused.

    Args:
        path: where to write the table too, as ``dmp patch --export`` does; None: nowhere.
        sampler: as in :func:`sample`.
        steps: as in :func:`sample`.
        dense: products of weights and prompts, instead of both: larger, and simpler to use.

    Returns:
        ``prompts.i`` (N, D) and ``weights.i`` (S, N, 1) of each block i, for S timesteps; ``mixtures.i`` (S, N, D) with
        ``dense``. On feature maps (H, W, C) stands for (N, D).

    Raises:
        ConfigError: the gate reads the class, the patch has low-rank experts, or the sampler cannot be followed.
        PatchError: several patches are attached, or none.
    """
    from ..patching import bake_table, describe_table, save_table, sha256_of_patch
    from ..sampling import visited_timesteps

    if len(patched.patches) != 1:
        raise PatchError(f"merge() takes one attached patch, and here are {len(patched.patches)}")
    asked: dict[str, Any] = {"sampler": sampler, "steps": steps}
    config = build(SampleConfig, **{name: value for name, value in asked.items() if value is not None})
    _, timesteps = visited_timesteps(config, patched.backbone)
    table = bake_table(patched, timesteps, dense=dense)
    if path is not None:
        record = describe_table(patched, timesteps, digest=sha256_of_patch(patched.patch), dense=dense)
        save_table(Path(path), table, record)
    return table
