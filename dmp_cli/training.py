"""The training loop: the same for every method, so that a difference between two runs is the method's.

Letters: B global batch. Noise, timesteps and label dropout of a sample depend on (seed, step, its place in the global
batch) alone, its image and flip on (seed, position in the stream of epochs), so a run can start at any step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import randomness
from .backbones.base import Backbone
from .balance import Balance, authors_importance, measure_balance, measure_use
from .codec import image_size
from .config import TrainConfig
from .data import Batch, batches
from .devices import autocast
from .engine import PatchedBackbone
from .errors import DataError, DivergedError, StoppedError
from .images import ImageSource
from .methods import Trainee
from .objective import Schedule, denoising_loss
from .pace import Meter, learning_rate, rate_factor
from .runfolder import RunFolder
from .runstate import RunState, pack_optimizer, unpack_optimizer

_TERMS = ("loss", "mse", "bound", "importance", "load")


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
) -> Iterator[Progress]:
    """Train for ``config.steps`` steps from ``state`` (None: from the start), one :class:`Progress` a step.

    Writes ``log.jsonl``, checkpoints and the learnt file into ``run``. ``stop`` is asked after each step; when it
    answers with a signal number the loop saves and raises.

    Raises:
        DataError: classes that do not match, captions that are missing, or too many unreadable images.
        DivergedError: a loss or gradient that is not finite; the state before that step is saved.
        StoppedError: ``stop`` asked for the end; everything is saved.
    """
    check_conditions(images, trainee.backbone)
    loop = TrainingLoop(trainee, config)
    if state is not None:
        loop.restore(state)
    run.cut_log(after=loop.step)
    if loop.step >= config.steps:  # a kill may have come between the last checkpoint and the learnt file
        run.save(loop.state(), trainee, images=images, config=config)
    meter = Meter(config.batch_size)
    for batch in batches(
        images,
        image_size=image_size(trainee.codec, trainee.backbone),
        channels=trainee.codec.image_channels,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=loop.step,
        stop_step=config.steps,
        flip=config.flip,
        workers=config.workers,
        max_bad=config.max_bad,
        captions=trainee.backbone.takes_text,
    ):
        try:
            terms = loop.advance(batch)
        except DivergedError as error:
            run.save(loop.state(), trainee, images=images, config=config)
            raise DivergedError(
                f"{error.message}; the state before it is saved in {run.path}", hint=error.hint
            ) from error
        meter.add(terms)
        signal_number, last = stop(), loop.step == config.steps
        saved = loop.step % config.save_every == 0 or last or signal_number is not None
        line = None
        if loop.step % config.log_every == 0 or last:
            line = meter.read(step=loop.step, lr=learning_rate(config, loop.step - 1))
            run.log(line)
        if saved:
            run.save(loop.state(), trainee, images=images, config=config)
        yield Progress(loop.step, terms, line, batch.bad, saved)
        if signal_number is not None and not last:
            raise StoppedError(
                f"stopped after step {loop.step}; saved, continue with --resume", signal_number=signal_number
            )


class TrainingLoop:
    """Optimizer, average and step counter around one trainee."""

    def __init__(self, trainee: Trainee, config: TrainConfig) -> None:
        self.trainee, self.config, self.step = trainee, config, 0
        self.device = trainee.backbone.device
        self.schedule = Schedule(trainee.backbone.schedule, device=self.device)
        groups = [{**group, "lr": group["rate"]} for group in trainee.groups]
        self.optimizer = torch.optim.AdamW(
            groups, betas=(0.9, 0.999), weight_decay=config.weight_decay, fused=self.device.type in ("cpu", "cuda")
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.dtype == "fp16")
        self.parameters = [parameter for group in trainee.groups for parameter in group["params"]]
        self.ema = {name: p.detach().clone() for name, p in trainee.learnt.items()} if config.ema else {}

    def advance(self, batch: Batch) -> dict[str, Tensor]:
        """One optimizer step on one global batch; the terms of its loss."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * rate_factor(config, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        places = torch.arange(config.batch_size)
        timesteps = randomness.integers(
            "timestep", self.schedule.num_timesteps, seed=config.seed, step=self.step, indices=places.tolist()
        ).to(self.device)
        terms = dict.fromkeys(_TERMS, torch.zeros((), device=self.device))
        labels = self._labels(batch)
        rows = self._gate_rows(len(places))
        for part in places.split(config.micro_batch_size or config.batch_size):
            with self._gate_noise(rows, part):
                done = self._denoise(batch, part, timesteps[part], labels[part])
            for name, value in done.items():
                terms[name] = terms[name] + value
        terms |= self._balance(timesteps, self._condition(labels, places), rows)
        self._apply(terms)
        self.step += 1
        self._average()
        return terms

    def _labels(self, batch: Batch) -> Tensor:
        """What each image is of, (B,): its class, or the index of its caption."""
        if not self.trainee.backbone.takes_text:
            return batch.labels
        assert batch.captions is not None
        return self.trainee.backbone.captions.indices(batch.captions)

    def _denoise(self, batch: Batch, part: Tensor, timesteps: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Loss and gradients of one micro-batch, weighted by its share of the global batch."""
        draws: dict[str, Any] = {"seed": self.config.seed, "step": self.step, "indices": part.tolist()}
        shape = self.trainee.backbone.sample_shape
        images = batch.images[part].to(self.device)
        drawn = self.trainee.codec.record.kind == "vae"  # the only codec with a posterior to draw from
        posterior = randomness.normal("posterior", shape, **draws) if drawn else torch.empty(0)
        x0 = self.trainee.codec.encode(images, noise=posterior.to(self.device))
        noise = randomness.normal("noise", shape, **draws).to(self.device)
        xt = self.schedule.add_noise(x0, noise=noise, timesteps=timesteps)
        condition = self._condition(labels, part)
        with autocast(self.device, self.config.dtype):
            prediction = self.trainee.denoiser(xt, timesteps, condition)
        loss = denoising_loss(prediction, x0=x0, xt=xt, noise=noise, timesteps=timesteps, schedule=self.schedule)
        share = len(part) / self.config.batch_size
        self.scaler.scale(loss.total.mean() * share).backward()
        means = {"loss": loss.total, "mse": loss.mse, "bound": loss.bound}
        return {name: values.detach().mean() * share for name, values in means.items()}

    def _condition(self, labels: Tensor, places: Tensor) -> Tensor | None:
        """The condition of the samples at ``places`` in the global batch, some labels or captions dropped."""
        backbone = self.trainee.backbone
        if backbone.num_classes == 0 and not backbone.takes_text:
            return None
        labels = torch.zeros_like(labels) if backbone.num_classes == 1 else labels
        labels = labels.to(self.device)
        if not backbone.has_null or not self.config.class_dropout:
            return labels
        draws = randomness.uniform("class-dropout", seed=self.config.seed, step=self.step, indices=places.tolist())
        dropped = draws.to(labels.device) < self.config.class_dropout
        return torch.where(dropped, backbone.null_condition(len(labels)), labels)

    def _gate_rows(self, count: int) -> Tensor | None:
        """Normal noise (B, N) of this step for the gate's logits: in the load estimate and, if asked, the mixture."""
        denoiser = self.trainee.denoiser
        if self.trainee.load_noise is None or not isinstance(denoiser, PatchedBackbone):
            return None
        shape = (count, denoiser.patch.num_prompts)
        return randomness.normal_rows("load", shape, seed=self.config.seed, step=self.step).to(self.device)

    def _gate_noise(self, rows: Tensor | None, part: Tensor) -> contextlib.AbstractContextManager[None]:
        """The authors' noisy logits for the samples ``part``: std(t) * noise, where they are asked for."""
        denoiser, std = self.trainee.denoiser, self.trainee.load_noise
        if not self.config.gate_noise or rows is None or std is None or not isinstance(denoiser, PatchedBackbone):
            return contextlib.nullcontext()
        own = rows[part, None]  # (B, 1, N)
        return denoiser.noisy(lambda vector: std(vector) * own)

    def _balance(self, timesteps: Tensor, condition: Tensor | None, noise: Tensor | None) -> dict[str, Tensor]:
        """Balance losses over the whole global batch at once, as the gate needs no image; and how it is used."""
        config, denoiser = self.config, self.trainee.denoiser
        if not isinstance(denoiser, PatchedBackbone) or denoiser.patch.gate is None:
            return {}
        gating, top_k = denoiser.gating(timesteps, condition), denoiser.patch.top_k
        if config.balance_losses == "authors":
            balance = Balance(authors_importance(gating.weights), gating.weights.new_zeros(()))
        else:
            balance = measure_balance(gating, load_noise=self.trainee.load_noise, noise=noise, top_k=top_k)
        total = config.balance_importance * balance.importance + config.balance_load * balance.load
        if total.requires_grad and (config.balance_importance or config.balance_load):
            self.scaler.scale(total).backward()
        use = measure_use(gating.weights.detach())
        return {"importance": balance.importance.detach(), "load": balance.load.detach(), **use._asdict()}

    def _apply(self, terms: dict[str, Tensor]) -> None:
        """The optimizer's step, unless something is not finite."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        finite = torch.stack([terms["loss"], *torch._foreach_norm(gradients)]).isfinite().all()
        # Under fp16 an overflowing gradient is the scaler's business: it skips the step and lowers the scale.
        if not bool(terms["loss"].isfinite() if self.scaler.is_enabled() else finite):
            raise DivergedError(
                f"step {self.step + 1}: the loss is {float(terms['loss'])} and its gradients are not all finite",
                hint="Lower --lr and --gate-lr, or add --warmup; --resume goes on from the saved state.",
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _average(self) -> None:
        if self.ema:
            # the average starts as a plain mean and lengthens until it reaches the decay asked for
            decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
            live = [parameter.detach() for parameter in self.trainee.learnt.values()]
            torch._foreach_lerp_(list(self.ema.values()), live, 1 - decay)

    def state(self) -> RunState:
        """Everything later steps depend on."""
        return RunState(
            step=self.step,
            learnt={name: parameter.detach() for name, parameter in self.trainee.learnt.items()},
            helpers=self._helpers(),
            optimizer=pack_optimizer(self.optimizer),
            ema=self.ema,
            scaler=self.scaler.state_dict(),
        )

    def restore(self, state: RunState) -> None:
        """Continue from ``state`` as if it had never been left."""
        self.step = state.step
        with torch.no_grad():
            for name, parameter in self.trainee.learnt.items():
                parameter.copy_(state.learnt[name])
            for name, value in self._helpers().items():
                value.copy_(state.helpers[name])
            for name, value in self.ema.items():
                value.copy_(state.ema[name])
        unpack_optimizer(self.optimizer, state.optimizer)
        if state.scaler:
            self.scaler.load_state_dict(state.scaler)

    def _helpers(self) -> dict[str, Tensor]:
        noise = self.trainee.load_noise
        return {} if noise is None else {"load_noise.weight": noise.weight.detach()}


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
