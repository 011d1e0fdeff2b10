"""Attach a patch to a loaded backbone through hooks: no module is edited, replaced or renamed.

A forward hook on the module that the gate reads computes all gate weights once per forward; a pre-hook on each prompted
block adds that block's mixture (paper, Eq. 3).
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
from .compatibility import check_digest, check_fit, check_variant, prompt_shape, prompted_blocks
from .hooks import AddMap, AddMixture, DropPrompts, Link, PrependPrompts, ReadGate
from .prompts import Gating, Patch


class PatchedBackbone(nn.Module):
    """A frozen backbone and its patch, called like the backbone. The patch's parameters alone require grad."""

    def __init__(self, backbone: Backbone, patch: Patch, *, strength: float) -> None:
        super().__init__()
        self.backbone, self.patch = backbone, patch
        self._link = Link(patch, strength)
        self._weights_at: dict[int, list[Tensor]] = {}  # timestep -> each block's gate weights, see at()
        self._weights_stamp: tuple[tuple[int, int], ...] = ()
        self._required_grad = {name: p.requires_grad for name, p in backbone.named_parameters()}
        self._was_training = {name: module.training for name, module in backbone.named_modules()}
        backbone.requires_grad_(False)
        backbone.eval()
        self._handles = self._hook()

    def _hook(self) -> list[RemovableHandle]:
        _forget_compiled_graphs()
        blocks = self.backbone.list_blocks()[: len(self.patch.hidden_shapes)]
        mixtures = self._mixtures(len(blocks))
        # Without a prompted block too: this hook is how attach() knows that a patch is there.
        source = self.backbone.gate_sources[self.patch.config.gate_input]
        handles = [source.register_forward_hook(ReadGate(self._link, mixtures))]
        for block, mixture in zip(blocks, mixtures, strict=True):
            handles.append(block.module.register_forward_pre_hook(mixture, with_kwargs=True))
        if blocks and self.patch.config.position == "prepend":
            handles.append(blocks[-1].module.register_forward_hook(DropPrompts(self._link)))
        return handles

    def _mixtures(self, count: int) -> list[AddMixture]:
        kind = type(self.backbone)
        if self.patch.config.position == "add":
            adds = AddMixture if self.patch.grid is None else AddMap
            return [adds(self._link, kind) for _ in range(count)]
        return [PrependPrompts(self._link, kind, first=index == 0) for index in range(count)]

    @property
    def strength(self) -> float:
        """Factor on every mixture: 1 as trained, 0 the bare backbone (where prompts are added, not prepended)."""
        return self._link.strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._link.strength = float(value)

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        """One denoising prediction; arguments and result as of :meth:`Backbone.forward`."""
        return self.backbone(x, timesteps, condition)

    def gating(self, timesteps: Tensor, condition: Tensor | None = None) -> Gating:
        """The gate's weights for ``timesteps`` (B,) outside a forward, with gradients to the gate.

        ``condition`` (B,) matters to a gate that reads the conditioning; None: the null condition, or else class 0.
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
        """Inside the block the backbone answers bare, bit for bit."""
        before, self._link.enabled = self._link.enabled, False
        try:
            yield
        finally:
            self._link.enabled = before

    @contextlib.contextmanager
    def noisy(self, offset: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Inside the block ``offset`` of the gate's input (B, D) is added to its logits, (B, 1, N)."""
        self._link.offset = offset
        try:
            yield
        finally:
            self._link.offset = None

    @contextlib.contextmanager
    def at(self, timestep: int) -> Iterator[None]:
        """Inside, every row of a forward is at ``timestep``: its gate weights are computed once for all batches.

        Without effect where the gate reads the class too. Changed gate weights are noticed.
        """
        if self.patch.config.gate_input != "timestep" or not self.patch.hidden_shapes:
            yield
            return
        stamp = tuple((id(parameter), parameter._version) for parameter in self.patch.parameters())
        if stamp != self._weights_stamp:
            self._weights_at, self._weights_stamp = {}, stamp
        if timestep not in self._weights_at:
            with torch.inference_mode(False), torch.no_grad():  # such that any later forward may use them
                vector = torch.tensor([timestep], device=self.backbone.device)
                self._weights_at[timestep] = self.patch.spread(self.gating(vector).weights)
        self._link.fixed = self._weights_at[timestep]
        try:
            yield
        finally:
            self._link.fixed = None

    def detach(self) -> Backbone:
        """Remove the hooks and give the backbone back as it was before :func:`attach`. Once detached, does nothing."""
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
    """Attach ``patch`` to ``backbone`` and freeze the backbone. A fresh patch changes no output bit where it is added.

    Every check comes before the first hook, so a patch that does not fit leaves the backbone untouched.

    A model that diffusers loaded, such as ``pipe.unet``, is taken as it is: from then on it answers patched wherever it
    is called from, also from inside its pipeline.

    Args:
        strength: factor on every mixture.
        force: accept a backbone whose weights are not those the patch was trained on; its sizes must fit all the same.

    Raises:
        PatchError: another family, other sizes, other weights, or a patch is attached already.
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
        check_digest(backbone, patch.record.backbone)
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in backbone.parameters()):
        warnings.warn(
            "this backbone keeps its hidden state in half precision, where a mixture under about 0.2 % of it rounds to "
            "nothing; keep its weights in float32 and compute under autocast",
            stacklevel=2,
        )
    patch.to(backbone.device)
    return PatchedBackbone(backbone, patch, strength=strength)


def create_patch(
    backbone: Backbone, config: PatchConfig, *, codec: CodecRecord, image_size: int, seed: int = 0
) -> Patch:
    """A zero patch for ``backbone``: attached, it changes nothing until trained.

    Raises:
        ConfigError: more blocks or chosen prompts asked for than there are, or a gate input that it lacks.
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
            schedule=backbone.schedule,
            codec=codec,
            image_size=image_size,
            text=backbone.captions.encoder.record if backbone.takes_text and backbone.text_folder else None,
        )
    return patch


def _forget_compiled_graphs() -> None:
    # A graph compiled before the hooks came, or went, would silently run without, or with, them.
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
