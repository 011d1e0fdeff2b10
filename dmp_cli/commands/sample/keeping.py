"""How the network that ``dmp sample`` draws from is kept in memory meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...config import SampleConfig, SamplingMemory
from ...errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ...backbones import Keeping
    from ...patching import Versions
    from ...pipeline import Loaded


def keeping_of(config: SampleConfig, memory: SamplingMemory, device: torch.device) -> Keeping:
    """How the frozen weights are kept.

    Raises:
        ConfigError: ``device`` cannot keep them so. It is said before weights are read.
    """
    from ...backbones import Keeping

    # On a CPU the originals would stay beside them, in the same memory.
    half = "fp32" if device.type == "cpu" else config.dtype
    how = Keeping(half, config.quantize, memory.offload_blocks)
    how.check(device)
    return how


@contextlib.contextmanager
def keeping(how: Keeping, loaded: Loaded, versions: Versions | None, device: torch.device) -> Iterator[None]:
    """Context in which the frozen weights are kept as ``how`` says, and all else is on ``device``.

    With offloaded blocks the codec waits in main memory too.

    Raises:
        ConfigError: another version of the network has weights of its own, or layers that would not be packed.
    """
    from ...backbones import kept
    from ...patching import PatchVersions, Tuned

    if how.packs and not (versions is None or isinstance(versions, PatchVersions)):
        named = "--quantize" if how.quantize is not None else "--offload-blocks"
        raise ConfigError(f"{named} and --against: the other version can be a patch or the base of a patch only")
    if how.offload_blocks:
        loaded.codec.rest()
    loaded.backbone.requires_grad_(False)  # nothing is learnt here, and only frozen layers are packed

    def move(place: torch.device) -> None:
        loaded.denoiser.to(place)
        loaded.codec.to(place)

    adapter = None if isinstance(loaded.adapter, Tuned) else loaded.adapter
    how = how if adapter is None else how._replace(half="fp32")  # peft computes in the type of its own weights
    with kept(loaded.backbone, how, device=device, move=move, without=_exact_layers(loaded)):
        yield


def _exact_layers(loaded: Loaded) -> list[nn.Module]:
    """The layers of an adapter, and those whose weights it reads: DoRA takes the lengths of their rows."""
    from ...patching import Adapter

    if not isinstance(loaded.adapter, Adapter):
        return []
    own = [module for name, module in loaded.backbone.core.named_modules() if ".lora_" in name]
    if loaded.adapter.is_dora:
        own += [loaded.backbone.core.get_submodule(f"{name}.base_layer") for name in loaded.adapter.layers]
    return own
