"""One patch on a backbone: its hooks, and its gate weights at timesteps that were asked for.

Letters: B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..backbones import Backbone
from .expert_hooks import hook_experts
from .gates import BlockWeights, Gating
from .hooks import AddMap, AddMixture, AddNothing, DropPrompts, Link, NoteLayout, PrependPrompts, ReadGate
from .prompts import Patch


class AttachedPatch:
    """One patch on a backbone: its hooks, and its gate weights at timesteps that were asked for."""

    def __init__(self, backbone: Backbone, patch: Patch, *, strength: float) -> None:
        self.backbone, self.patch = backbone, patch
        self.link = Link(patch, strength)
        self._weights_at: dict[float, BlockWeights] = {}  # by timestep; see at()
        self._weights_stamp: tuple[tuple[int, ...], ...] = ()
        self.handles = self._hook()

    def _hook(self) -> list[RemovableHandle]:
        """Register all hooks of the patch."""
        blocks = self.backbone.list_blocks()[: len(self.patch.hidden_shapes)]
        self.link.mixtures = mixtures = self._mixtures(len(blocks))
        # Registered even without a prompted block, because attach() recognises a patched backbone by it.
        source = self.backbone.gate_sources[self.patch.config.gate_input]
        first = self.backbone.run_sources_first()
        handles = [] if first is None else [first]
        if (places := self.backbone.places) is not None:
            note = NoteLayout(self.link, places)
            handles.append(self.backbone.core.register_forward_pre_hook(note, with_kwargs=True))
        handles.append(source.register_forward_hook(ReadGate(self.link)))
        for block, mixture in zip(blocks, mixtures, strict=True):
            handles.append(block.module.register_forward_pre_hook(mixture, with_kwargs=True))
        for block, layers, experts in zip(blocks, self.patch.expert_layers, self.patch.experts, strict=False):
            hooks, own = hook_experts(self.link, block.module, layers, experts)  # type: ignore[arg-type]
            self.link.experts.append(hooks)
            handles += own
        if blocks and self.patch.config.position == "prepend":
            handles.append(blocks[-1].module.register_forward_hook(DropPrompts(self.link, type(self.backbone))))
        return handles

    def _mixtures(self, count: int) -> list[AddMixture]:
        """The pre-hooks of the first ``count`` blocks."""
        kind = type(self.backbone)
        if not self.patch.config.has_prompts:
            return [AddNothing(self.link, kind) for _ in range(count)]
        if self.patch.config.position == "add":
            adds = AddMixture if self.patch.grid is None else AddMap
            blocks = self.backbone.list_blocks()[:count]
            return [adds(self.link, kind, block.joined) for block in blocks]
        return [PrependPrompts(self.link, kind, first=index == 0) for index in range(count)]

    def remove(self) -> None:
        """Remove its hooks."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def gating(self, timesteps: Tensor, condition: Tensor | None) -> Gating:
        """Gate weights for ``timesteps`` (B,), outside a forward; see :meth:`PatchedBackbone.gating`."""
        if self.patch.config.gate_input == "timestep":
            condition = None
        elif condition is None:
            count = len(timesteps)
            condition = (
                self.backbone.null_condition(count)
                if self.backbone.has_null
                else timesteps.new_zeros(count, dtype=torch.int64)
            )
        return self.patch(self.backbone.gate_vector(timesteps, condition))

    def weights_at(self, timestep: float) -> BlockWeights | None:
        """The gate's weights at ``timestep``, kept until the patch changes; None if the gate reads the class."""
        if self.patch.config.gate_input != "timestep" or not self.patch.hidden_shapes:
            return None
        own = ((id(parameter), parameter._version) for parameter in self.patch.parameters())
        stamp = (*own, self.backbone.sample_shape[1:])  # on whose size the timestep of a level may depend
        if stamp != self._weights_stamp:
            self._weights_at, self._weights_stamp = {}, stamp
        known = self._weights_at
        if timestep not in known:
            with torch.inference_mode(False), torch.no_grad():  # ordinary tensors, which any later forward may use
                vector = torch.tensor([timestep], device=self.backbone.device)
                known[timestep] = self.patch.for_blocks(self.gating(vector, None).weights)
        return known[timestep]
