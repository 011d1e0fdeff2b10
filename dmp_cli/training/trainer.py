"""The training loop: the same for every method, so that a difference between two runs is the method's.

Noise, timesteps and label dropout of a sample depend on (seed, step, its place in the global batch) alone, its image
and flip on (seed, position in the stream of epochs), so a run can start at any step, on any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..backbones import Backbone
from ..config import TrainConfig
from ..data import ImageSource, LiveReader, Prefetch, Reader, read_batches
from ..errors import DataError, DMPError, StoppedError
from ..latents import LatentStore, image_size
from ..runtime import World
from .checkpoint import RunState
from .loop import Inputs, TrainingLoop
from .lr_schedule import learning_rate
from .memory import arranged
from .meter import Meter
from .methods import Trainee
from .run_folder import RunFolder


@dataclass(frozen=True)
class Progress:
    """What one step did."""

    step: int  # steps done, this one included
    terms: dict[str, Tensor]  # scalars on the device: loss, mse, bound, importance, load, and how a gate is used
    line: dict[str, Any] | None = None  # what went to log.jsonl; None between two of its lines
    bad: list[str] = field(default_factory=list)  # unreadable images newly met
    saved: bool = False


def train(
    trainee: Trainee,
    *,
    images: ImageSource,
    config: TrainConfig,
    run: RunFolder,
    state: RunState | None = None,
    stop: Callable[[], int | None] = lambda: None,
    store: LatentStore | None = None,
    world: World | None = None,
    device: torch.device | None = None,
) -> Iterator[Progress]:
    """Train for ``config.steps`` steps from ``state`` (None: from the start), one :class:`Progress` a step.

    Writes ``log.jsonl``, checkpoints and the learnt file into ``run``. ``stop`` is asked after each step; when it
    answers with a signal number the loop saves and raises. ``store`` is a complete latent store of ``images``; None
    encodes live. In a ``world`` of several processes each calls this alike, and the first one writes.

    Raises:
        DataError: classes that do not match, captions that are missing, too many unreadable images, a damaged store.
        DivergedError: too many steps whose loss or gradient is not finite; the state before them is saved.
        StoppedError: ``stop`` asked for the end; everything is saved.
        DMPError: no gradient arrives, or the frozen backbone was changed.
    """
    check_conditions(images, trainee.backbone)
    world, device = world or World(), device or trainee.backbone.device
    with arranged(trainee, config, world, device):
        loop = TrainingLoop(trainee, config, world=world, device=device)
        if state is not None:
            loop.restore(state)
        recorder = _Recorder(loop, images=images, run=run)
        if world.is_first:
            run.cut_log(after=loop.step)
        if loop.step >= config.steps:  # a kill may have come between the last checkpoint and the learnt file
            recorder.save()
        with Prefetch(_feed(loop, images, store)) as feed:
            yield from _steps(loop, feed, recorder, stop)


def _steps(
    loop: TrainingLoop, feed: Prefetch[Inputs], recorder: _Recorder, stop: Callable[[], int | None]
) -> Iterator[Progress]:
    config, alone = loop.config, loop.world.size == 1
    meter = Meter(config, loop.device)
    for inputs in _saving(meter.waiting(feed), recorder):
        try:
            terms = loop.advance(inputs, stop=None if alone else stop())
            told = loop.guard.check()
            if loop.step == config.steps:
                loop.guard.finish()
        except DMPError:
            recorder.save()
            raise
        meter.add(terms)
        number = stop() if alone else told  # all processes end after the same step
        last = loop.step == config.steps
        saved = loop.step % config.save_every == 0 or last or number is not None
        line = None
        if loop.step % config.log_every == 0 or last:
            line = meter.read(step=loop.step, lr=learning_rate(config, loop.step - 1))
            recorder.log(line)
        if saved:
            recorder.save()
        yield Progress(loop.step, terms, line, inputs.batch.bad, saved)
        if number is not None and not last:
            raise StoppedError(f"stopped after step {loop.step}; saved, continue with --resume", signal_number=number)


def _saving(inputs: Iterator[Inputs], recorder: _Recorder) -> Iterator[Inputs]:
    """``inputs``; where reading them fails, such as at too many bad images, what was learnt until then is saved."""
    begun = recorder.loop.step
    try:
        yield from inputs
    except DMPError:
        if recorder.loop.step > begun:
            recorder.save()
        raise


def _feed(loop: TrainingLoop, images: ImageSource, store: LatentStore | None) -> Iterator[Inputs]:
    """The inputs of the steps to come, as they are wanted on the device."""
    config, trainee = loop.config, loop.trainee
    reader: Reader = store or LiveReader(
        images, image_size=image_size(trainee.codec, trainee.backbone), channels=trainee.codec.image_channels
    )
    found = read_batches(
        images,
        reader,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=loop.step,
        stop_step=config.steps,
        flip=config.flip,
        workers=config.workers,
        max_bad=config.max_bad,
        captions=trainee.backbone.takes_text,
        share=loop.places,
    )
    for batch in found:
        yield loop.prepare(batch)


class _Recorder:
    """What one process of a run writes: the first everything, the others nothing."""

    def __init__(self, loop: TrainingLoop, *, images: ImageSource, run: RunFolder) -> None:
        self.loop, self.images, self.run = loop, images, run
        self.frozen = loop.trainee.is_frozen
        self.stamp = loop.trainee.backbone.stamp()

    def log(self, line: dict[str, Any]) -> None:
        if self.loop.world.is_first:
            self.run.log(line)

    def save(self) -> None:
        """Save the run, unless the backbone that should be frozen was changed meanwhile."""
        if self.frozen and self.loop.trainee.backbone.stamp() != self.stamp:
            raise DMPError(
                "the frozen backbone's weights were changed while the patch was trained; nothing more is saved",
                hint="Leave the backbone alone between the steps; --resume goes on from what was saved before.",
            )
        if self.loop.world.is_first:
            self.run.save(self.loop.state(), self.loop.trainee, images=self.images, config=self.loop.config)


def check_conditions(images: ImageSource, backbone: Backbone) -> None:
    """Raise DataError unless the data's classes are the backbone's, or its captions are there, where it needs them."""
    check_captions(images, backbone)
    if backbone.num_classes > 1 and len(images.classes) != backbone.num_classes:
        found = f"{len(images.classes)} class folders" if images.classes else "no class folders"
        raise DataError(
            f"the backbone knows {backbone.num_classes} classes, the data has {found}",
            hint="Give a folder with one sub-folder per class, in the order of the class indices.",
        )


def check_captions(images: ImageSource, backbone: Backbone) -> None:
    """Raise DataError when the backbone reads text and some image has none."""
    if backbone.takes_text and not images.has_captions:
        missing = images.missing_captions()
        raise DataError(
            f"this backbone reads text, and {len(missing)} or more images have no caption, such as {missing[0]}",
            hint='Put captions in metadata.jsonl, a line {"file_name": ..., "text": ...} an image, or in NAME.txt.',
        )
