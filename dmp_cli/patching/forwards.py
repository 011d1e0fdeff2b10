"""What one forward of a patched backbone adds belongs to that forward alone.

Threads that call one patched backbone at the same time each have their own state. And a block that runs again in the
backward pass, as under gradient checkpointing, adds what its own forward added, whatever ran since: forwards are known
by the hidden states that they gave to the blocks.

Letters: B batch.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..backbones import Layout, running_rows
from .gates import BlockWeights


class Settings(NamedTuple):
    """How a forward began: what its thread had set by then."""

    enabled: bool
    strength: float
    offset: Callable[[Tensor], Tensor] | None  # noise on the gate's logits, as the authors train
    fixed: BlockWeights | None  # if all rows have one known timestep
    rows: Tensor | None = None  # a factor for each row of the forward, (B,): 0 where the patch adds nothing
    running: Tensor | None = None  # which rows of the thread's batch the forward holds; None: all

    def noise(self, vector: Tensor) -> Tensor | None:
        """What is added to the gate's logits for its input ``vector`` (B, D); None: nothing."""
        if self.offset is None or self.running is None:
            return None if self.offset is None else self.offset(vector)
        with running_rows.given(self.running):
            return self.offset(vector)


class Forward(NamedTuple):
    """One forward: its settings, and each block's gate weights; None with the patch off."""

    settings: Settings
    weights: BlockWeights | None
    layout: Layout | None = None  # where the image's tokens are; None: on a square, and alone


S = TypeVar("S")


class PerThread(threading.local, Generic[S]):
    """A state for each thread, made by ``make`` when the thread first asks.

    It is an object of its own, because torch.compile forgets what compiled code sets on a ``threading.local``.
    """

    def __init__(self, make: Callable[[], S]) -> None:
        self.state = make()


class ThreadState:
    """What one thread has set, and what its running forward adds. Every thread begins with the patch on."""

    def __init__(self) -> None:
        # Set here and not on the class: torch.compile guards the attributes of the object alone.
        self.enabled = True
        self.offset: Callable[[Tensor], Tensor] | None = None
        self.fixed: BlockWeights | None = None
        self.rows: Tensor | None = None
        self.adds = False  # whether the running forward adds anything
        self.strength = 1.0  # of the running forward
        self.layout: Layout | None = None  # of the running forward
        self.forward: Forward | None = None  # the running one; None in compiled code, which keeps its own tensors


class ForwardsInFlight:
    """Forwards by the tensors that were given to the hooked modules, for as long as these tensors live."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], Forward | None]] = {}  # by the id of a living tensor

    def remember(self, tensor: Tensor, forward: Forward, *, alone: bool = False) -> None:
        """Note that ``tensor`` was given to a module in ``forward``.

        With ``alone``, a tensor that was given in another forward too, as captions can be, tells nothing from then on.
        """
        if torch.is_inference_mode_enabled():  # no backward pass can follow
            return
        name = id(tensor)
        if alone and self._known.get(name, (None, forward))[1] is not forward:
            self._known[name] = self._known[name][0], None
            return

        def forget(gone: weakref.ref[Tensor]) -> None:
            if self._known.get(name, (None,))[0] is gone:
                self._known.pop(name, None)

        self._known[name] = weakref.ref(tensor, forget), forward

    def recall(self, tensor: Tensor) -> Forward | None:
        """The forward in which ``tensor`` was given to a module; None where nothing is known of it."""
        found = self._known.get(id(tensor))
        return None if found is None else found[1]


def is_in_backward() -> bool:
    """Whether this thread is in a backward pass, where a forward can only be a recomputation."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
