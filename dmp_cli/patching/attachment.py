"""Attach a patch to a loaded backbone through hooks. No module is edited, replaced or renamed.

A forward hook on the module that gives t computes the gate weights sigma(G([t; i])) of all blocks, once per forward. A
pre-hook on each prompted block i adds the mixture sigma(G([t; i])) * p_i to its input x_i (paper, Eq. 3).
Letters: B batch, L prompted blocks, N prompts of a block, D width of t.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..backbones import Backbone, as_backbone
from ..config import CodecRecord, PatchConfig, PatchRecord
from ..errors import CheckpointError, PatchError
from .compatibility import check_fit, check_variant, prompt_shape, prompted_blocks
from .gates import Gating
from .hooks import AddMap, AddMixture, DropPrompts, Link, PrependPrompts, ReadGate
from .identity import check_weights, rounded_digests
from .prompts import Patch


class PatchedBackbone(nn.Module):
    """A frozen backbone with its patch. It is called like the backbone; only the patch's parameters require grad."""

    def __init__(self, backbone: Backbone, patch: Patch, *, strength: float) -> None:
        super().__init__()
        self.backbone, self.patch = backbone, patch
        self._link = Link(patch, strength)
        self._weights_at: dict[int, list[Tensor]] = {}  # each block's gate weights by timestep; see at()
        self._weights_stamp: tuple[tuple[int, int], ...] = ()
        self._required_grad = {name: p.requires_grad for name, p in backbone.named_parameters()}
        self._was_training = {name: module.training for name, module in backbone.named_modules()}
        backbone.requires_grad_(False)
        backbone.eval()
        self._handles = self._hook()

    def _hook(self) -> list[RemovableHandle]:
        """Register all hooks of the patch."""
        _forget_compiled_graphs()
        blocks = self.backbone.list_blocks()[: len(self.patch.hidden_shapes)]
        self._link.mixtures = mixtures = self._mixtures(len(blocks))
        # Registered even without a prompted block, because attach() recognises a patched backbone by it.
        source = self.backbone.gate_sources[self.patch.config.gate_input]
        handles = [source.register_forward_hook(ReadGate(self._link))]
        for block, mixture in zip(blocks, mixtures, strict=True):
            handles.append(block.module.register_forward_pre_hook(mixture, with_kwargs=True))
        if blocks and self.patch.config.position == "prepend":
            handles.append(blocks[-1].module.register_forward_hook(DropPrompts(self._link)))
        return handles

    def _mixtures(self, count: int) -> list[AddMixture]:
        """The pre-hooks of the first ``count`` blocks."""
        kind = type(self.backbone)
        if self.patch.config.position == "add":
            adds = AddMixture if self.patch.grid is None else AddMap
            return [adds(self._link, kind) for _ in range(count)]
        return [PrependPrompts(self._link, kind, first=index == 0) for index in range(count)]

    @property
    def strength(self) -> float:
        """Factor on every mixture: at 1 the patch acts as trained, at 0 added (not prepended) prompts do nothing."""
        return self._link.strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._link.strength = float(value)

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        """Make one denoising prediction. Arguments and result are those of :meth:`Backbone.forward`."""
        return self.backbone(x, timesteps, condition)

    def gating(self, timesteps: Tensor, condition: Tensor | None = None) -> Gating:
        """Gate weights sigma(G([t; i])) for ``timesteps`` (B,), outside a forward, with gradients to the gate.

        ``condition`` (B,) has an effect only if the gate reads the conditioning. None stands for the null condition, or
        for class 0 if the backbone has none.
        """
        if self.patch.config.gate_input == "timestep":
            condition = None
        elif condition is None:
            count = len(timesteps)
            condition = self.backbone.null_condition(count) if self.backbone.has_null else torch.zeros_like(timesteps)
        with self.disabled():
            vector = self.backbone.gate_vector(timesteps, condition)
        return self.patch(vector)

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside this context the patch is off: outputs equal those of the bare backbone bit for bit."""
        here = self._link.here
        before, here.enabled = here.enabled, False
        try:
            yield
        finally:
            here.enabled = before

    @contextlib.contextmanager
    def noisy(self, offset: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Inside this context, ``offset(t)`` (B, 1, N) is added to the gate's logits, for the gate's input t (B, D)."""
        here = self._link.here
        here.offset = offset
        try:
            yield
        finally:
            here.offset = None

    @contextlib.contextmanager
    def at(self, timestep: int) -> Iterator[None]:
        """Inside this context, every row of a forward is at ``timestep``: its gate weights are computed once and kept.

        This has no effect if the gate reads the class too. After a change of the patch they are computed again.
        """
        if self.patch.config.gate_input != "timestep" or not self.patch.hidden_shapes:
            yield
            return
        stamp = tuple((id(parameter), parameter._version) for parameter in self.patch.parameters())
        if stamp != self._weights_stamp:
            self._weights_at, self._weights_stamp = {}, stamp
        known, here = self._weights_at, self._link.here
        if timestep not in known:
            with torch.inference_mode(False), torch.no_grad():  # ordinary tensors, which any later forward may use
                vector = torch.tensor([timestep], device=self.backbone.device)
                known[timestep] = self.patch.spread(self.gating(vector).weights)
        here.fixed = known[timestep]
        try:
            yield
        finally:
            here.fixed = None

    def detach(self) -> Backbone:
        """Remove the hooks and return the backbone as it was before :func:`attach`. A second call does nothing."""
        if not self._handles:
            return self.backbone
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(self._required_grad[name])
        for name, module in self.backbone.named_modules():
            module.training = self._was_training[name]
        _forget_compiled_graphs()
        return self.backbone

    def train(self, mode: bool = True) -> PatchedBackbone:
        """Set the patch's mode; the frozen backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self


def attach(
    backbone: Backbone | nn.Module, patch: Patch, *, strength: float = 1.0, force: bool = False
) -> PatchedBackbone:
    """Attach ``patch`` to ``backbone`` and freeze the backbone.

    A new patch whose prompts are added changes no output bit. Every check comes before the first hook, so a patch that
    does not fit leaves the backbone untouched.

    Args:
        backbone: a backbone, or a model that diffusers loaded, such as ``pipe.unet``. Such a model is patched wherever
            it is called, also inside its pipeline.
        strength: factor on every mixture.
        force: accept other weights than those the patch was trained on. The sizes must fit nevertheless. Weights that
            are the same in a lower precision, or with an adapter of peft beside them, are no other weights.

    Raises:
        PatchError: the backbone has another family, other sizes or other weights, or has a patch already.
    """
    if not isinstance(backbone, Backbone):
        try:
            backbone = as_backbone(backbone)
        except CheckpointError as error:
            raise PatchError(error.message, hint="Load it with dmp_cli.load_backbone.") from error
    hooks = [hook for source in backbone.gate_sources.values() for hook in source._forward_hooks.values()]
    if any(isinstance(hook, ReadGate) for hook in hooks):
        raise PatchError(
            "this backbone has a patch attached already", hint="Call detach() on the patched backbone first."
        )
    check_fit(backbone, patch)
    if patch.record is not None and not force:
        check_weights(backbone, patch.record)
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in backbone.parameters()):
        warnings.warn(
            "this backbone keeps its hidden state in half precision, where a mixture under about 0.2 % of it rounds to "
            "zero; keep its weights in float32 and compute under autocast",
            stacklevel=2,
        )
    patch.to(backbone.device)
    return PatchedBackbone(backbone, patch, strength=strength)


def create_patch(
    backbone: Backbone, config: PatchConfig, *, codec: CodecRecord, image_size: int, seed: int = 0
) -> Patch:
    """Create a new patch for ``backbone``. By default its prompts are zero, so that it changes nothing yet.

    Args:
        codec: codec of the training images.
        image_size: side of the training images in pixels.
        seed: seed of the gate's first weights; see :class:`Patch`.

    Raises:
        ConfigError: the variant ``config`` is impossible on this backbone.
    """
    check_variant(backbone, config)
    blocks = prompted_blocks(backbone.list_blocks(), config)
    shapes = [prompt_shape(block, config) for block in blocks]
    patch = Patch(config, hidden_shapes=shapes, gate_width=backbone.gate_width, seed=seed)
    if backbone.record is not None:
        patch.record = PatchRecord(
            config=config,
            hidden_shapes=[list(shape) for shape in shapes],
            gate_width=backbone.gate_width,
            backbone=backbone.record,
            rounded=rounded_digests(backbone),
            schedule=backbone.schedule,
            codec=codec,
            image_size=image_size,
            text=backbone.captions.encoder.record if backbone.takes_text and backbone.text_folder else None,
        )
    return patch


def _forget_compiled_graphs() -> None:
    # A graph that was compiled before the hooks changed would silently run with the old ones.
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
