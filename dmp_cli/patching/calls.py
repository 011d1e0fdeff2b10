"""A call of a denoiser by its own signature: which rows it holds, and the same call with other rows.

Letters: B rows of a call, (C, H, W) the shape of what the denoiser denoises.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import PatchError

# Arguments that say where the tokens of any one image lie: they have no rows, and serve all of them.
_POSITIONS = frozenset({"img_ids", "txt_ids", "image_rotary_emb"})


class Signature:
    """Where a denoiser's forward takes its latents, timesteps and classes. Names are those of diffusers and of ours."""

    def __init__(self, denoiser: nn.Module) -> None:
        # of the class: offloading puts another forward on the object
        self.names = list(inspect.signature(type(denoiser).forward).parameters)[1:]
        self.latents = self.names[0]
        self.timesteps = next((name for name in ("timesteps", "t") if name in self.names), "timestep")
        self.classes = "condition" if "condition" in self.names else "class_labels"

    def read(self, name: str, call: Call) -> Any:
        """The argument called ``name``; None if the call does not give it."""
        place = self.names.index(name)
        return call.args[place] if place < len(call.args) else call.kwargs.get(name)


class Call(NamedTuple):
    """The arguments of one call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def change(self, rows: Callable[[Tensor], Tensor], *, count: int) -> Call:
        """The same call with ``rows(tensor)`` in place of each tensor of ``count`` rows, also inside lists and dicts.

        Tensors of one row or without rows serve all rows, and stay. So do positions of tokens, which pipelines give by
        their name.

        Raises:
            PatchError: a tensor has another number of rows.
        """

        def changed(tensor: Tensor) -> Tensor:
            if tensor.dim() and len(tensor) not in (1, count):
                raise PatchError(
                    f"guide(): this call has {count} rows and an argument of shape {tuple(tensor.shape)}",
                    hint="Give each argument one row for each row of latents.",
                )
            return rows(tensor) if tensor.dim() and len(tensor) == count else tensor

        return self._map(changed)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Call:
        def inside(value: Any) -> Any:
            if isinstance(value, Tensor):
                return change(value)
            if isinstance(value, dict):
                return {name: inside(one) for name, one in value.items()}
            if type(value) in (list, tuple):
                return type(value)(inside(one) for one in value)
            return value

        named = {name: value if name in _POSITIONS else inside(value) for name, value in self.kwargs.items()}
        return Call(inside(self.args), named)


def take_prediction(output: Any) -> Tensor:
    """The prediction in what a denoiser returns: a tensor, a tuple that begins with it, or an output of diffusers."""
    if isinstance(output, Tensor):
        return output
    return output[0] if isinstance(output, tuple) else output.sample


def put_prediction(output: Any, prediction: Tensor) -> Any:
    """What a denoiser returned, with another prediction."""
    if isinstance(output, Tensor):
        return prediction
    if isinstance(output, tuple):
        return (prediction, *output[1:])
    return dataclasses.replace(output, sample=prediction)


def are_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values; what is not a number equals itself here."""
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
