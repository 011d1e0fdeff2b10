"""The hooks that bring a patch into a backbone's forward: x_i + sigma(G([t; i])) * p_i in front of block i (Eq. 3).

Hooks are objects, not closures, so that a deep copy or a pickle of a patched backbone has its own patch.

Letters: B batch, T image tokens in a block, N prompts of a block, D width; C, H, W of a feature map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..backbones import Backbone, Joined, Places, own_rows, running_rows
from .expert_hooks import AddExperts
from .forwards import Forward, ForwardsInFlight, PerThread, Settings, ThreadState, is_in_backward
from .gates import BlockWeights
from .interpolate import resize_maps, resize_tokens, square_grid
from .joined import put_image, take_image
from .prompts import Patch, add_mixture

if TYPE_CHECKING:
    from .patched import PatchedBackbone


class Link:
    """What all hooks of one patched backbone share. What a forward needs belongs to its thread and its call."""

    def __init__(self, patch: Patch, strength: float) -> None:
        self.patch = patch
        self.strength = strength
        self.mixtures: list[AddMixture] = []  # one for each block that is patched, in order
        self.experts: list[list[AddExperts]] = []  # of the layers of each of these blocks; empty without experts
        self._threads = PerThread(ThreadState)
        self.in_flight = ForwardsInFlight()
        self.owner: PatchedBackbone | None = None  # None in a copy of the model alone

    @property
    def here(self) -> ThreadState:
        """The state of the running thread."""
        return self._threads.state

    def settings(self) -> Settings:
        """How a forward that begins now in this thread begins."""
        here = self.here
        rows = None if here.rows is None else own_rows(here.rows)
        return Settings(here.enabled, self.strength, here.offset, here.fixed, rows, running_rows.value)

    def enter(self, forward: Forward) -> None:
        """Make ``forward`` the running one of this thread."""
        here = self.here
        here.adds, here.strength = forward.weights is not None, forward.settings.strength
        here.layout = forward.layout
        if not torch.compiler.is_compiling():
            here.forward = forward
        if forward.weights is None:
            return
        added, updated = forward.weights
        if added:
            for mixture, weights, prompts in zip(self.mixtures, added, self.patch.prompts, strict=True):
                mixture.here.weights, mixture.here.prompts = weights, prompts
        for hooks, weights in zip(self.experts, updated, strict=True):
            for hook in hooks:
                hook.here.weights = weights

    def tie(self, given: Tensor, *, alone: bool = False) -> None:
        """Tie ``given``, a module's input, to the running forward; in a backward pass, go back to the forward it is of.

        ``alone``: only if it is given in no other forward.

        Compiled code needs neither: there the gate's weights go to the blocks as values of one graph.
        """
        if torch.compiler.is_compiling():
            return
        if is_in_backward():
            known = self.in_flight.recall(given)
            if known is not None and known is not self.here.forward:
                self.enter(known)
        elif self.here.forward is not None:
            self.in_flight.remember(given, self.here.forward, alone=alone)

    def __getstate__(self) -> dict[str, Any]:
        # A thread's state and the forwards in flight are this object's own; neither can be copied or pickled.
        return {name: getattr(self, name) for name in ("patch", "strength", "mixtures", "experts")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _threads=PerThread(ThreadState), in_flight=ForwardsInFlight(), owner=None)


class _Added:
    """What one block adds in the running forward of a thread."""

    def __init__(self) -> None:
        self.weights: Tensor | None = None  # sigma(G([t; i])), (B, N, 1)
        self.prompts: Tensor | None = None  # p_i, (N, D)


class AddMixture:
    """Pre-hook on one block: adds the block's mixture to the hidden state in its call (Eq. 3).

    :class:`ReadGate` sets its tensors before each forward of the blocks. With an index into shared tensors instead,
    torch.compile would compile every block anew.
    """

    def __init__(self, link: Link, backbone_type: type[Backbone], joined: Joined | None = None) -> None:
        self.link, self.backbone_type, self.joined = link, backbone_type, joined
        self._threads = PerThread(_Added)

    @property
    def here(self) -> _Added:
        """What it adds in the running thread."""
        return self._threads.state

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        hidden = self.backbone_type.take_hidden(args, kwargs)
        self.link.tie(hidden)
        if not self.link.here.adds:
            return None
        return self.backbone_type.put_hidden(args, kwargs, self.add(hidden))

    def add(self, hidden: Tensor) -> Tensor:
        """The hidden state with the block's mixture, which is added to the image's tokens alone."""
        here = self.link.here
        if self.joined is None:
            weights, prompts = self.fit(hidden)
            return add_mixture(hidden, weights=weights, prompts=prompts, strength=here.strength)
        assert here.layout is not None
        image = take_image(hidden, self.joined, here.layout)
        weights, prompts = self.fit(image)
        added = add_mixture(image, weights=weights, prompts=prompts, strength=here.strength)
        return put_image(hidden, added, self.joined, here.layout)

    @property
    def weights(self) -> Tensor:
        """sigma(G([t; i])) of the running forward, (B, N, 1)."""
        assert self.here.weights is not None
        return self.here.weights

    @property
    def prompts(self) -> Tensor:
        """p_i, (N, D)."""
        assert self.here.prompts is not None
        return self.here.prompts

    def fit(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and prompts for ``hidden`` (B, T, D), resized if the image has another grid of tokens."""
        layout, count = self.link.here.layout, self.prompts.shape[0]
        grid = square_grid(hidden.shape[1]) if layout is None else layout.grid
        if grid[0] * grid[1] != hidden.shape[1]:
            raise ValueError(f"a block is given {hidden.shape[1]} tokens, and the image has {grid[0]} x {grid[1]}")
        if grid[0] == grid[1] and hidden.shape[1] == count:
            return self.weights, self.prompts
        return tuple(resize_tokens(t, grid=grid) for t in (self.weights, self.prompts[None]))  # type: ignore[return-value]

    def __getstate__(self) -> dict[str, Any]:
        # The tensors belong to one forward. They are results of autograd, which can be neither copied nor pickled.
        return {name: value for name, value in vars(self).items() if name != "_threads"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _threads=PerThread(_Added))


class AddNothing(AddMixture):
    """Pre-hook on one block of a patch that has no prompts: ties the block's input to the running forward."""

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.link.tie(self.backbone_type.take_hidden(args, kwargs))


class AddMap(AddMixture):
    """Pre-hook on one block of feature maps: weights (B, 1, H, W), prompts (H, W, C), hidden state (B, C, H', W')."""

    def fit(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, 1, H', W') and prompts (1, C, H', W') for ``hidden``, resized if it has another size."""
        height, width = hidden.shape[2:]
        prompts = self.prompts.permute(2, 0, 1)[None]  # (1, C, H, W)
        return resize_maps(self.weights, size=(height, width)), resize_maps(prompts, size=(height, width))


class PrependPrompts(AddMixture):
    """Pre-hook on one block: puts its weighted prompts in front of the image tokens (Table 4d).

    They replace the prompts of the block before, so that the number of tokens stays N + T.
    """

    def __init__(self, link: Link, backbone_type: type[Backbone], *, first: bool) -> None:
        super().__init__(link, backbone_type)
        self.first = first

    def add(self, hidden: Tensor) -> Tensor:
        """The prompts in front of the images' tokens: (B, N + T, D) -> (B, N + T, D); at the first block (B, T, D)."""
        tokens = (self.link.here.strength * self.weights * self.prompts).to(hidden.dtype)  # (B or 1, N, D)
        images = hidden if self.first else hidden[:, tokens.shape[1] :]
        return torch.cat([tokens.expand(len(hidden), -1, -1), images], dim=1)


class DropPrompts:
    """Forward hook on the last prompted block: drops the prompts from its output, (B, N + T, D) -> (B, T, D)."""

    def __init__(self, link: Link, backbone_type: type[Backbone]) -> None:
        self.link, self.backbone_type = link, backbone_type

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        if not self.link.here.adds:
            return None
        images = self.backbone_type.take_output(output)[:, self.link.patch.num_prompts :].contiguous()
        return self.backbone_type.put_output(output, images)


class NoteLayout:
    """Pre-hook on the denoiser: notes where the image's tokens are in the forward that begins."""

    def __init__(self, link: Link, places: Places) -> None:
        self.link, self.places = link, places

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self.link.here.layout = self.places.layout_of(module, args, kwargs)


class ReadGate:
    """Forward hook on the module that the gate reads: computes the weights of every block from its output t (B, D)."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        settings = self._settings(args)
        self.link.enter(Forward(settings, self._weights(settings, output), self.link.here.layout))
        if args and isinstance(args[0], Tensor) and not is_in_backward():
            self.link.tie(args[0])

    def _settings(self, args: Any) -> Settings:
        """How this forward begins; where the gate runs again in a backward pass, how it began."""
        if not (args and is_in_backward()):
            return self.link.settings()
        known = self.link.in_flight.recall(args[0])
        return self.link.settings() if known is None else known.settings

    def _weights(self, settings: Settings, vector: Tensor) -> BlockWeights | None:
        """The gate's weights for each block; None with the patch off, or without a patched block."""
        if not (settings.enabled and self.link.mixtures):
            return None
        if settings.fixed is not None:
            return settings.fixed.of_rows(settings.rows)
        patch = self.link.patch
        if patch.device != vector.device:  # the backbone was moved, or is offloaded and computes elsewhere
            patch.to(vector.device)
        return patch.for_blocks(patch(vector, offset=settings.noise(vector)).weights).of_rows(settings.rows)
