"""How much memory a computation takes, counted from shapes: nothing is computed and no memory is taken.

Tensors of ``shapes_only`` have a shape, a type and a lifetime, and no values. ``LiveMemory`` adds up the storages that
are alive at each moment, those that autograd keeps for the backward pass among them.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from .known_numbers import KnownNumbers


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Context in which new tensors have shapes and no values, as if on a CPU; whole numbers may be known."""
    with _mode(), KnownNumbers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is warned of here is warned of in the real computation
        yield


@functools.cache
def _mode() -> Any:
    """The one mode of all such tensors: one of another mode would be copied, and count twice."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


class LiveMemory(TorchDispatchMode):
    """Context that counts the bytes of all tensors alive, ``live``, and the most there were at once, ``peak``."""

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        """``known`` are tensors that are there already and count from the start."""
        super().__init__()
        self.live = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}
        for tensor in known:
            self._see(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._see, result)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()  # views share a storage
        if key in self._alive:
            return

        def forget(_: Any) -> None:
            del self._alive[key]
            self.live -= size

        self._alive[key] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)
