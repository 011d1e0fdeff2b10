"""Frozen weights that wait in main memory, each moved to the device where it is used, in the backward pass too.

The hooks of diffusers (``apply_group_offloading``) are for inference: autograd holds on to each weight that was on the
device, so that between the two passes all of them are there; blocks that are recomputed end before the hook that takes
their weights away. And they know no layers in few bits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .base import Backbone
from .packed import Packed, packable, packed


def check_offload(device: torch.device) -> None:
    """Raise ConfigError where ``device`` has no memory of its own."""
    if device.type != "cuda":
        raise ConfigError(
            f"--offload-blocks needs a GPU with memory of its own, and this run computes on {device.type}",
            hint="Leave it out, or name another --device.",
        )


@contextlib.contextmanager
def offloaded(backbone: Backbone, *, device: torch.device, without: Collection[nn.Module] = ()) -> Iterator[None]:
    """Context in which the weights of the blocks' linear and convolutional layers wait in main memory.

    Each goes to ``device`` for the time of its product, and once more in the backward pass. What is computed stays the
    same to the last bit. Layers in ``without`` and those that are packed already are left as they are.
    """
    layers = [layer for layer in packable(backbone, (nn.Linear, nn.Conv2d), without=without) if _is_plain(layer)]
    with packed(backbone, layers, _as_it_is, device=device, aside=True):
        yield


def _as_it_is(weight: Tensor) -> Packed:
    return Packed(weight.to("cpu"), None, lambda codes, dtype: codes.to(dtype))


def _is_plain(layer: nn.Module) -> bool:
    """Whether it is not packed, and the gradient of its input is known: of a convolution that pads with zeros."""
    if "forward" in vars(layer):
        return False
    return not isinstance(layer, nn.Conv2d) or (layer.padding_mode == "zeros" and not isinstance(layer.padding, str))
