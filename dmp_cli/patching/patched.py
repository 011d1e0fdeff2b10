"""A frozen backbone with its patches: what they add, in which strength, and how they are taken off again.

A forward hook on the module that gives t computes the gate weights sigma(G([t; i])) of all blocks, once per forward. A
pre-hook on each prompted block i adds the mixture sigma(G([t; i])) * p_i to its input x_i (paper, Eq. 3). Several
patches add one mixture each.
Letters: B batch, L prompted blocks, N prompts of a block, D width of t.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..errors import PatchError
from .attached import AttachedPatch
from .gates import Gating
from .prompts import Patch
from .shown import ShownBackbone, note_owner

DEFAULT_NAME = "default"


class PatchedBackbone(ShownBackbone, nn.Module):
    """A frozen backbone with its patches. It is called like the backbone; only the patches' parameters require grad."""

    def __init__(self, backbone: Backbone, patch: Patch, *, strength: float, name: str = DEFAULT_NAME) -> None:
        super().__init__()
        self.backbone, self.patch = backbone, patch
        self.further = nn.ModuleDict()  # patches attached beside the first one, by name
        self._required_grad = {name: p.requires_grad for name, p in backbone.named_parameters()}
        self._was_training = {name: module.training for name, module in backbone.named_modules()}
        backbone.requires_grad_(False)
        backbone.eval()
        self._attached: dict[str, AttachedPatch] = {}
        self._attach(patch, strength=strength, name=name)
        self._first = self._attached[name]

    def _attach(self, patch: Patch, *, strength: float, name: str) -> None:
        forget_compiled_graphs()
        self._attached[name] = AttachedPatch(self.backbone, patch, strength=strength)
        self._attached[name].link.owner = self
        note_owner(patch, self)

    def add(self, patch: Patch, *, strength: float, name: str) -> None:
        """Attach ``patch`` beside the patches that are there, under a name of its own.

        Raises:
            PatchError: the name is taken, or one of the patches puts prompts in front of the tokens.
        """
        if name in self._attached:
            raise PatchError(
                f"this backbone has a patch called {name} attached already",
                hint="Detach it first, or give the other one a name of its own: attach(..., name=...).",
            )
        if any(one.config.position == "prepend" for one in (patch, *self.patches.values())):
            raise PatchError("a patch with --position prepend works alone; another one cannot be attached beside it")
        self.further[name] = patch
        self._attach(patch, strength=strength, name=name)

    @property
    def patches(self) -> Mapping[str, Patch]:
        """The attached patches by name, in the order in which they were attached."""
        return {name: attached.patch for name, attached in self._attached.items()}

    @property
    def strength(self) -> float:
        """Factor on every mixture: at 1 the patch acts as trained, at 0 added (not prepended) prompts do nothing.

        Of several patches, it is that of the first one; see :meth:`set_strength`.
        """
        return self._first.link.strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._first.link.strength = float(value)

    def strength_of(self, name: str) -> float:
        """The strength of the patch called ``name``. Raises PatchError if there is none."""
        return self._find(name).link.strength

    def set_strength(self, name: str, value: float) -> None:
        """Set the strength of the patch called ``name``. Raises PatchError if there is none."""
        self._find(name).link.strength = float(value)

    def _find(self, name: str) -> AttachedPatch:
        if name not in self._attached:
            raise PatchError(f"no patch called {name} is attached", hint=f"There are {', '.join(self._attached)}.")
        return self._attached[name]

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        """Make one denoising prediction. Arguments and result are those of :meth:`Backbone.forward`."""
        return self.backbone(x, timesteps, condition)

    def gating(self, timesteps: Tensor, condition: Tensor | None = None, *, name: str | None = None) -> Gating:
        """Gate weights sigma(G([t; i])) for ``timesteps`` (B,), outside a forward, with gradients to the gate.

        ``condition`` (B,) has an effect only if the gate reads the conditioning. None stands for the null condition, or
        for class 0 if the backbone has none. Of several patches, the gate is that of the one called
        ``name``; None: of the first one.
        """
        with self.disabled():
            return (self._first if name is None else self._find(name)).gating(timesteps, condition)

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside this context all patches are off: outputs equal those of the bare backbone bit for bit."""
        with self.only(()):
            yield

    @contextlib.contextmanager
    def only(self, names: Collection[str]) -> Iterator[None]:
        """Inside this context only the patches called ``names`` add anything."""
        states = [attached.link.here for name, attached in self._attached.items() if name not in names]
        before = [here.enabled for here in states]
        for here in states:
            here.enabled = False
        try:
            yield
        finally:
            for here, enabled in zip(states, before, strict=True):
                here.enabled = enabled

    @contextlib.contextmanager
    def rows(self, factors: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside this context, a patch's mixture is multiplied by a factor for each row of the batch, (B,).

        ``factors`` names the patches. Where the factor is 0, the row is as without that patch, bit for bit.
        """
        states = {name: self._find(name).link.here for name in factors}
        for name, here in states.items():
            here.rows = factors[name]
        try:
            yield
        finally:
            for here in states.values():
                here.rows = None

    @contextlib.contextmanager
    def noisy(self, offset: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Inside this context, ``offset(t)`` (B, 1, N) is added to the gate's logits, for the gate's input t (B, D)."""
        here = self._first.link.here
        here.offset = offset
        try:
            yield
        finally:
            here.offset = None

    @contextlib.contextmanager
    def at(self, timestep: float) -> Iterator[None]:
        """Inside this context, every row of a forward is at ``timestep``: gate weights are computed once and kept.

        ``timestep`` is what the backbone reads: a whole number of a DDPM, a level in [0, 1] of a flow.
        This has no effect on a gate that reads the class too. After a change of a patch they are computed again.
        """
        with self.disabled():
            fixed = [(one.link.here, one.weights_at(timestep)) for one in self._attached.values()]
        for here, weights in fixed:
            here.fixed = weights
        try:
            yield
        finally:
            for here, _ in fixed:
                here.fixed = None

    def detach(self, name: str | None = None) -> Backbone:
        """Remove the hooks of the patch called ``name``, or of all patches, and return the backbone.

        With the last patch gone, the backbone is as it was before :func:`attach`. After that, this does nothing.
        """
        leaving = list(self._attached) if name is None else [name]
        if not self._attached:
            return self.backbone
        for one in leaving:
            self._find(one).remove()
            note_owner(self._attached.pop(one).patch, None)
            if one in self.further:
                self.further.pop(one)
        forget_compiled_graphs()
        if self._attached:
            self._promote(*next(iter(self._attached.items())))
            return self.backbone
        for own, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(self._required_grad[own])
        for own, module in self.backbone.named_modules():
            module.training = self._was_training[own]
        return self.backbone

    def _promote(self, name: str, attached: AttachedPatch) -> None:
        """Make a patch the first one, as those before it have been detached."""
        if attached is not self._first:
            self._first, self.patch = attached, attached.patch
            self.further.pop(name)

    def train(self, mode: bool = True) -> PatchedBackbone:
        """Set the mode of the patches; the frozen backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        for attached in self._attached.values():
            attached.link.owner = self
            note_owner(attached.patch, self)


def forget_compiled_graphs() -> None:
    """Drop what torch.compile has made: a graph from before the hooks changed would run on without, or with, them."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
