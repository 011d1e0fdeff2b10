"""Training from the first step to the last, with its log and its checkpoints.

It is the same for every method, so two runs that differ in the method differ in nothing else. The noise, timestep and
label dropout of a sample depend only on (seed, step, place in the global batch); its image and flip depend only on
(seed, position in the sequence of epochs). So a run can continue at any step, on any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..config import TrainConfig
from ..data import ImageSource, LiveReader, Prefetch, Reader, read_batches
from ..errors import DivergedError, DMPError, StoppedError
from ..latents import image_size
from ..runtime import Foresight, World
from .checkpoint import RunState
from .conditions import check_conditions
from .diagnosis import explain
from .ending import Ending
from .held_out import HeldOut, HeldOutLoss
from .loop import TrainingLoop
from .lr_schedule import learning_rate
from .memory import arranged
from .meter import Meter
from .methods import Trainee
from .objective import Inputs
from .run_folder import RunFolder
from .validation import Judge, Validation


@dataclass(frozen=True)
class Progress:
    """The result of one step."""

    step: int  # the number of steps done, including this one
    terms: dict[str, Tensor]  # scalars on the device: loss, mse, bound, importance, load and the use of the gate
    line: dict[str, Any] | None = None  # the line written to log.jsonl, if this step wrote one
    bad: list[str] = field(default_factory=list)  # messages about unreadable images that this step found
    remarks: list[str] = field(default_factory=list)  # what Pillow warned of in its images, and smaller micro-batches
    saved: bool = False  # whether a checkpoint was written
    held_out: HeldOutLoss | None = None  # the loss on held-out images, if it was measured after this step
    ended: str = ""  # why the run ends before its last step; empty: it goes on


def train(
    trainee: Trainee,
    *,
    images: ImageSource,
    config: TrainConfig,
    run: RunFolder,
    state: RunState | None = None,
    stop: Callable[[], int | None] = lambda: None,
    foretell: Callable[[Callable[[], Foresight]], None] = lambda foresee: None,
    fresh: Callable[[], None] = lambda: None,
    begun: Callable[[int], None] = lambda step: None,
    store: Reader | None = None,
    held_out: tuple[ImageSource, Reader] | None = None,
    judge: Judge | None = None,
    world: World | None = None,
    device: torch.device | None = None,
) -> Iterator[Progress]:
    """Train until ``config.steps`` steps are done, and yield one :class:`Progress` per step.

    Training continues from ``state``, or starts at step 0 if it is None. ``log.jsonl``, the checkpoints and the learnt
    file are written into ``run``. ``stop`` is called after each step; a signal number ends the run, which is saved.
    ``foretell`` gets a function that says what such a signal would do. ``fresh`` is called while the network is as at
    step 0, also of a run that goes on; ``begun`` before the first step, with the number of steps done, when everything
    is as it was after them. ``store`` reads the latents of ``images``: a complete latent store, or those that were
    kept; else images are encoded. ``held_out`` are images that are not trained on, and what reads them; ``judge`` may
    end the run by their loss; see :mod:`validation`. All processes of a ``world`` call this; the first one writes.

    Raises:
        DataError: the classes do not match, captions or readable images are missing, or the store is damaged.
        DivergedError: too many steps had a loss or gradient that is not finite; the state before them is saved.
        StoppedError: ``stop`` returned a signal number; everything is saved.
        DMPError: no gradient reaches the trainable parameters, or the frozen backbone was changed.
    """
    check_conditions(images, trainee.backbone)
    world, device = world or World(), device or trainee.backbone.device
    with arranged(trainee, config, world, device):
        loop = TrainingLoop(trainee, config, world=world, device=device)
        fresh()  # as the validation, before the state is restored: it has to see the bare network
        validation = None if held_out is None else Validation(loop, run, _draws_of(loop, held_out), judge=judge)
        if state is not None:
            loop.restore(state)
        ending = Ending(loop, saved=None if state is None else state.step)
        recorder = _Recorder(loop, images=images, run=run, ending=ending)
        foretell(ending.foresee)
        is_over = recorder.begin(validation)
        begun(loop.step)
        if is_over:
            return
        with Prefetch(_feed(loop, images, store)) as feed:
            yield from _steps(loop, feed, recorder, stop, validation)


def _draws_of(loop: TrainingLoop, source: tuple[ImageSource, Reader]) -> HeldOut:
    """The draws of the held-out loss of a run."""
    trainee, config = loop.trainee, loop.config
    how: dict[str, Any] = {"draws": config.val_draws, "seed": config.val_seed, "dtype": config.dtype}
    how |= {"world": loop.world, "is_spread": config.shard_backbone}
    return HeldOut(trainee.backbone, trainee.codec, source=source, **how)


def _steps(
    loop: TrainingLoop,
    feed: Prefetch[Inputs],
    recorder: _Recorder,
    stop: Callable[[], int | None],
    validation: Validation | None,
) -> Iterator[Progress]:
    config, alone = loop.config, loop.world.size == 1
    meter = Meter(config, loop.device)
    start = loop.step
    for inputs in _saving(meter.waiting(feed), recorder):
        if not alone:
            recorder.ending.pass_by()
        try:
            terms = loop.advance(inputs, stop=None if alone else stop())
            received = loop.guard.check()
            if loop.step == config.steps:
                loop.guard.finish()
        except DMPError as error:
            if loop.is_whole and loop.step > start:
                recorder.save()
            if isinstance(error, DivergedError):
                raise explain(error, loop, inputs) from error
            raise
        meter.add(terms)
        if alone:
            recorder.ending.pass_by()
        number = stop() if alone else received  # so that all processes end after the same step
        last = loop.step == config.steps
        found = None if validation is None else validation.see(last=last)
        ended = validation.reason if validation is not None and found is not None and not last else ""
        saved = loop.step % config.save_every == 0 or last or number is not None or bool(ended)
        line = None
        if loop.step % config.log_every == 0 or last:
            line = meter.read(step=loop.step, lr=learning_rate(config, loop.step - 1))
            recorder.log(line)
        if ended:
            recorder.log({"step": loop.step, "ended": ended})
        if found is not None and validation is not None and validation.improved and config.keep_best:
            recorder.save_best()
        if saved:
            recorder.save()
        remarks = [*inputs.batch.remarks, *loop.micro_batches.take_remarks()]
        yield Progress(loop.step, terms, line, inputs.batch.bad, remarks, saved, found, ended)
        if ended:
            return
        if number is not None and not last:
            raise StoppedError(
                f"stopped after step {loop.step}; everything is saved, continue with --resume", signal_number=number
            )


def _saving(inputs: Iterator[Inputs], recorder: _Recorder) -> Iterator[Inputs]:
    """Yield ``inputs``. If reading them fails, as with too many bad images, save the run before raising the error."""
    start = recorder.loop.step
    try:
        yield from inputs
    except DMPError:
        if recorder.loop.step > start:
            recorder.save()
        raise


def _feed(loop: TrainingLoop, images: ImageSource, store: Reader | None) -> Iterator[Inputs]:
    """The inputs of the remaining steps, on the device."""
    config, trainee = loop.config, loop.trainee
    reader: Reader = store or LiveReader(
        images,
        image_size=image_size(trainee.codec, trainee.backbone),
        channels=trainee.codec.image_channels,
        max_pixels=config.max_pixels,
    )
    batches = read_batches(
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
    for batch in batches:
        yield loop.prepare(batch)


class _Recorder:
    """Writes the files of a run. Only the first process writes; the others only check the frozen backbone."""

    def __init__(self, loop: TrainingLoop, *, images: ImageSource, run: RunFolder, ending: Ending) -> None:
        self.loop, self.images, self.run, self.ending = loop, images, run, ending
        self.frozen = loop.trainee.is_frozen
        self.stamp = self._stamp()

    def _stamp(self) -> list[tuple[int, int]]:
        """The stamp of the frozen weights: of the backbone's without those of an adapter inside it."""
        learnt = {id(parameter) for parameter in self.loop.trainee.learnt.values()}
        return [stamp for stamp in self.loop.trainee.backbone.stamp() if stamp[0] not in learnt]

    def begin(self, validation: Validation | None) -> bool:
        """Let log and files be as they are after the step that the run goes on from; whether it is over already."""
        loop = self.loop
        if loop.world.is_first:
            self.run.cut_log(after=loop.step)
        if validation is not None:
            validation.begin()
        is_over = validation is not None and validation.is_over
        if loop.step >= loop.config.steps or is_over:  # killed between the last checkpoint and the learnt file, perhaps
            self.save()
        return is_over

    def log(self, line: dict[str, Any]) -> None:
        if self.loop.world.is_first:
            self.run.log(line)

    def save(self) -> None:
        """Save the run. Raises DMPError, and saves nothing, if a frozen backbone has changed since the start."""
        if self.frozen and self._stamp() != self.stamp:
            raise DMPError(
                "the frozen backbone's weights were changed while the patch was trained; nothing more is saved",
                hint="Do not change the backbone between the steps. --resume continues from the last checkpoint.",
            )
        if self.loop.world.is_first:
            self.run.save(self.loop.state(), self.loop.trainee, images=self.images, config=self.loop.config)
        self.ending.saved = self.loop.step

    def save_best(self) -> None:
        """Write what is learnt now as the best so far."""
        if self.loop.world.is_first:
            self.run.save_best(self.loop.state(), self.loop.trainee, images=self.images, config=self.loop.config)
