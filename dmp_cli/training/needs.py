"""How much memory a training step and a sampling step need, counted from shapes by a step that computes nothing.

The step is the real one: the same loop, optimizer and hooks, with tensors that have shapes and no values. So what
autograd keeps of the frozen blocks is counted, not estimated. It is counted as a CPU computes it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from ..backbones import Backbone, BlankCaptions, CaptionTable
from ..config import PatchConfig, TrainConfig
from ..data import Batch
from ..errors import DMPError
from ..latents import PixelCodec
from ..patching import PatchedBackbone
from ..runtime import LiveMemory, World, autocast, is_out_of_memory, shapes_only
from .loop import TrainingLoop
from .memory import arranged
from .methods import Trainee, prepare
from .noise import Draws
from .objective import Inputs

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Need:
    """Bytes on the device where it computes."""

    weights: int  # the frozen weights, in the precision they are kept in
    learnt: int  # what is learnt, with its gradients, the two moments of AdamW, and an average where one is kept
    peak: int  # the most at one moment: all of it, with activations and temporary tensors
    aside: int = 0  # the original float32 weights, which stay in main memory: on a CPU they count too

    @property
    def activations(self) -> int:
        """What the images take: kept for the backward pass, and temporary."""
        return self.peak - self.weights - self.learnt


def prepare_dry(config: TrainConfig, backbone: Backbone, patch_config: PatchConfig) -> Trainee:
    """``backbone`` with a new patch, ready to be counted: its tensors lose their values.

    Raises:
        ConfigError: the variant of the patch is impossible on it.
    """
    backbone.record = None  # a patch that is only counted describes no weights
    if backbone.takes_text:
        backbone.take_captions(cast(CaptionTable, BlankCaptions(backbone)))
    restore: Callable[[], None] = getattr(backbone, "restore", lambda: None)
    restore()
    trainee = prepare(config, backbone=backbone, codec=PixelCodec(backbone.sample_shape[0]), patch_config=patch_config)
    with _counting():
        return _without_values(trainee)


def count_training(trainee: Trainee, config: TrainConfig) -> Need:
    """What one step of ``config`` needs, for a trainee of :func:`prepare_dry`.

    Raises:
        DMPError: this backbone cannot be counted.
    """
    backbone, config = trainee.backbone, config.model_copy(update={"compile": False})
    with _counting(), arranged(trainee, config, World(), _CPU):
        frozen = _stored([*backbone.parameters(), *backbone.buffers()])
        # The originals are on the device of the weights, which is the CPU here.
        aside = sum(p.numel() * 4 for p in backbone.parameters() if p.dtype in (torch.bfloat16, torch.float16))
        aside += _bytes(backbone.parameters()) - _stored(backbone.parameters())  # of blocks that are offloaded
        loop = TrainingLoop(trainee, config)
        _make_moments(loop)
        known = [*_tensors(trainee), *loop.ema.values()]
        known += [t for state in loop.optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
        with LiveMemory(known) as memory:
            _computed(backbone, lambda: loop.advance(_blank_inputs(backbone, config.batch_size)))
        loop.optimizer.zero_grad(set_to_none=True)
    learnt = (4 + bool(config.ema)) * _bytes(loop.parameters)  # itself, gradient, two moments
    return Need(frozen, learnt, memory.peak, aside)


def count_loaded(trainee: Trainee, config: TrainConfig) -> Need:
    """As :func:`count_training`, for a trainee that was made to train: its tensors lose their values.

    Raises:
        DMPError: this backbone cannot be counted.
    """
    return count_training(_emptied(trainee), config)


def count_loaded_sampling(trainee: Trainee, config: TrainConfig, *, images: int, passes: int | None = None) -> Need:
    """As :func:`count_sampling`, for a trainee that was loaded to draw: its tensors lose their values.

    Raises:
        DMPError: this backbone cannot be counted.
    """
    return count_sampling(_emptied(trainee), config, images=images, passes=passes)


def _emptied(trainee: Trainee) -> Trainee:
    if trainee.backbone.takes_text:
        trainee.backbone.take_captions(cast(CaptionTable, BlankCaptions(trainee.backbone)))
    with _counting():
        return _without_values(replace(trainee, codec=PixelCodec(trainee.backbone.sample_shape[0])))


def passes_of(backbone: Backbone, *, guidance: float | None = None, is_joint: bool = False) -> int:
    """Predictions of an image in one batch: guided where there is a null condition, unless ``guidance`` is 1.

    ``is_joint``: one more by another version, which runs in the same batch.
    """
    guided = backbone.has_null and backbone.embedded_guidance is None and guidance != 1
    return 1 + guided + is_joint


def count_sampling(trainee: Trainee, config: TrainConfig, *, images: int, passes: int | None = None) -> Need:
    """What one denoising step of ``images`` samples needs; ``passes`` as of :func:`passes_of`, None: guided.

    Raises:
        DMPError: this backbone cannot be counted.
    """
    backbone, config = trainee.backbone, config.model_copy(update={"compile": False})
    rows = images * (passes_of(backbone) if passes is None else passes)
    with _counting(), arranged(trainee, config, World(), _CPU), torch.no_grad(), autocast(_CPU, config.dtype):
        frozen = _stored([*backbone.parameters(), *backbone.buffers()])
        with LiveMemory(_tensors(trainee)) as memory:
            inputs = _blank_inputs(backbone, rows)
            condition = inputs.batch.labels if backbone.num_classes > 0 or backbone.takes_text else None
            _computed(backbone, lambda: trainee.denoiser(inputs.batch.values, inputs.draws.timesteps, condition))
    return Need(frozen, _bytes(trainee.learnt.values()), memory.peak)


@contextlib.contextmanager
def _counting() -> Iterator[None]:
    """Context without values. Tables of positions that backbones remember are made anew in it, and again after it."""
    _forget_tables()
    try:
        with shapes_only():
            yield
    finally:
        _forget_tables()


def _forget_tables() -> None:
    for name in [name for name in sys.modules if name.startswith(Backbone.__module__.rpartition(".")[0] + ".")]:
        for value in vars(sys.modules[name]).values():
            if callable(forget := getattr(value, "cache_clear", None)):
                forget()


def _computed(backbone: Backbone, compute: Callable[[], object]) -> None:
    try:
        compute()
    except DMPError:
        raise
    except Exception as error:  # models of diffusers raise anything
        if is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {error}"
        if "DataDependent" in reason:
            reason = "it reads values, such as the lengths of captions"
        raise DMPError(
            f"the memory of a backbone of the family {backbone.family} cannot be counted from shapes: {reason}"
        ) from error


def _blank_inputs(backbone: Backbone, count: int) -> Inputs:
    """A batch of ``count`` samples and its draws, without values."""
    shape, indices = (count, *backbone.sample_shape), torch.zeros(count, dtype=torch.int64)
    captions = [""] * count if backbone.takes_text else None
    batch = Batch(step=0, values=torch.zeros(shape), labels=indices, indices=indices, bad=[], captions=captions)
    levels = torch.zeros(count, dtype=torch.int64 if backbone.schedule.flow is None else torch.float32)
    dropped = torch.zeros(count, dtype=torch.bool) if backbone.has_null else None
    return Inputs(batch, Draws(levels, torch.zeros(shape), None, None, dropped))


def _make_moments(loop: TrainingLoop) -> None:
    """Let the optimizer make its moments, as after the first step of a run."""
    for parameter in loop.parameters:
        parameter.grad = torch.zeros_like(parameter)
    loop.optimizer.step()
    loop.optimizer.zero_grad(set_to_none=True)


def _without_values(trainee: Trainee) -> Trainee:
    """The same trainee with parameters and buffers that have shapes alone."""
    blank: dict[int, nn.Parameter] = {}
    for module in _modules(trainee):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in blank:  # a tensor may have two names
                    made = nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype), parameter.requires_grad)
                    blank[id(parameter)] = blank[id(made)] = made
                module._parameters[name] = blank[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    learnt = {name: blank[id(parameter)] for name, parameter in trainee.learnt.items()}
    groups = [{**group, "params": [blank[id(p)] for p in group["params"]]} for group in trainee.groups]
    return replace(trainee, learnt=learnt, groups=groups)


def _modules(trainee: Trainee) -> Iterator[nn.Module]:
    denoiser = trainee.denoiser
    roots = [denoiser, trainee.backbone, trainee.backbone.core, trainee.load_noise]
    roots += [denoiser.patch] if isinstance(denoiser, PatchedBackbone) else []
    seen: set[int] = set()
    for root in roots:
        for module in root.modules() if root is not None else ():
            if id(module) not in seen:
                seen.add(id(module))
                yield module


def _tensors(trainee: Trainee) -> list[Tensor]:
    """All weights and buffers, each once."""
    found = [t for m in _modules(trainee) for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    return list({id(tensor): tensor for tensor in found}.values())


def _stored(tensors: Iterable[Tensor]) -> int:
    """Bytes of what is there: a weight that waits in main memory has left a tensor of one number."""
    storages = {storage._cdata: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())


def _bytes(tensors: object) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)  # type: ignore[attr-defined]
