"""Whole numbers that keep their values where all other tensors have shapes alone.

Some backbones read numbers of their tensors, such as the lengths of captions. Without values nothing could be read.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map_only

_MOST = 1 << 20  # values of a tensor that are kept


class KnownNumbers(TorchDispatchMode):
    """Context in which a tensor of whole numbers or truths that is computed from known ones alone is known too.

    What is made from no tensor, as by ``torch.ones``, is known. Reading a number of a known tensor gives its value.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}  # by the id of a living tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(value, Tensor) and self._value_of(value) is None for value in args):  # nearly always
            return self._noting_writes(func, func(*args, **kwargs))
        given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        values = [self._value_of(tensor) for tensor in given]
        is_known = all(value is not None for value in values) and "rand" not in str(func)
        if is_known and func is torch.ops.aten._local_scalar_dense.default:
            return values[0].item()  # type: ignore[union-attr]
        result = func(*args, **kwargs)
        made = [value for value in tree_flatten(result)[0] if isinstance(value, Tensor)]
        if is_known and made and all(_is_kept(tensor) for tensor in made):
            self._keep(func, args, kwargs, made)
            return result
        return self._noting_writes(func, result)

    def _noting_writes(self, func: Any, result: Any) -> Any:
        """``result`` of a computation without values; what it has written into is known no more."""
        if func._schema.is_mutable:
            for value in tree_flatten(result)[0]:
                self._known.pop(id(value), None)
        return result

    def _value_of(self, tensor: Tensor) -> Tensor | None:
        """The same tensor with values; None: it is not known."""
        if type(tensor) is Tensor and tensor.device.type == "cpu":  # it has values of its own
            return tensor
        return self._known.get(id(tensor), (None, None))[1]

    def _keep(self, func: Any, args: Any, kwargs: Any, made: list[Tensor]) -> None:
        """Compute with values what was computed without."""
        with _disable_current_modes():
            real = func(*tree_map_only(Tensor, self._value_of, args), **tree_map_only(Tensor, self._value_of, kwargs))
        for tensor, value in zip(made, tree_flatten(real)[0], strict=True):
            name = id(tensor)

            def forget(_: Any, name: int = name) -> None:
                self._known.pop(name, None)

            self._known[name] = weakref.ref(tensor, forget), value


def _is_kept(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel() <= _MOST
