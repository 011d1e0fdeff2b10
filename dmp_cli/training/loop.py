"""The optimizer steps of a run: the same for every training method, on one process or many.

Letters: B images of the global batch, b of them in this process. Nothing here waits for the device: the results of a
step stay on it as tensors, and ``guards`` reads its counts some steps later, when they are surely finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..config import TrainConfig, level_rule
from ..data import Batch
from ..errors import CheckpointError
from ..patching import PatchedBackbone
from ..runtime import STOP_SIGNALS, World, is_out_of_memory, let_go_of_memory
from .checkpoint import RunState, pack_optimizer, unpack_optimizer
from .guards import Guard
from .lr_schedule import rate_factor
from .methods import Trainee
from .micro_batches import MicroBatches
from .noise import Draws, NoiseSource, to_device
from .objective import Inputs, Objective, Terms

_TERMS = ("loss", "mse", "bound")


class TrainingLoop:
    """The optimizer, the moving average and the step counter of one trainee."""

    def __init__(
        self, trainee: Trainee, config: TrainConfig, *, world: World | None = None, device: torch.device | None = None
    ) -> None:
        """``world`` is None for a single process; ``device`` is by default the one that holds the backbone."""
        self.trainee, self.config, self.step = trainee, config, 0
        self.world, self.device = world or World(), device or trainee.backbone.device
        self.places = self.world.share(config.batch_size)
        self.micro_batches = MicroBatches(config, count=len(self.places), device=self.device)
        self.is_whole = True  # False while a step changes the values: what is saved then would be no state of a run
        self.objective = Objective(trainee, config, places=self.places, world=self.world, device=self.device)
        groups = [{**group, "lr": group["rate"]} for group in trainee.groups]
        self.optimizer = torch.optim.AdamW(
            groups, betas=(0.9, 0.999), weight_decay=config.weight_decay, fused=self.device.type in ("cpu", "cuda")
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.dtype == "fp16")
        self.parameters = [parameter for group in trainee.groups for parameter in group["params"]]
        self.ema = {name: p.detach().clone() for name, p in trainee.learnt.items()} if config.ema else {}
        self.guard = Guard(config, self.device)
        self.noise_source = self._noise_source()

    def _noise_source(self) -> NoiseSource:
        backbone, denoiser = self.trainee.backbone, self.trainee.denoiser
        noisy = self.trainee.load_noise is not None and isinstance(denoiser, PatchedBackbone)
        return NoiseSource(
            config=self.config,
            places=self.places,
            sample_shape=backbone.sample_shape,
            process=self.objective.process,
            rule=level_rule(self.config, backbone.level_rule),
            has_posterior=self.trainee.codec.has_posterior,
            num_prompts=denoiser.patch.gate_outputs if noisy and isinstance(denoiser, PatchedBackbone) else 0,
            drops_condition=self.objective.is_conditional and backbone.has_null and self.config.class_dropout > 0,
        )

    def prepare(self, batch: Batch) -> Inputs:
        """The batch of a step and its random draws, on their way to the device. Any thread may call this."""
        labels = to_device(batch.labels, self.device)
        values = to_device(batch.values, self.device)
        frames = None if batch.frames is None else to_device(batch.frames, self.device)
        draws = self.noise_source.draw(batch.step, sides=self._sides(batch)).to(self.device)
        return Inputs(replace(batch, values=values, labels=labels, frames=frames), draws)

    def _sides(self, batch: Batch) -> tuple[int, int] | None:
        """Height and width of the samples of a batch of one bucket; None: there are no buckets."""
        if batch.frames is None:
            return None
        factor = self.trainee.codec.factor if batch.values.dtype == torch.uint8 else 1  # pixels, or a codec's values
        height, width = batch.values.shape[2:]
        return height // factor, width // factor

    def advance(self, inputs: Inputs, *, stop: int | None = None) -> Terms:
        """Do one optimizer step on one global batch and return the terms of its loss.

        ``stop`` is the number of a signal that this process received; the guard tells it to all processes.
        """
        draws, batch = inputs.draws, inputs.batch
        assert batch.step == self.step
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * rate_factor(self.config, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        labels = self.objective.labels(batch)
        terms = self._accumulate(inputs, labels)
        signals = self._reduce(terms, stop)
        # The norms before the balance losses: those move the gate whatever the backbone does.
        image_norms = self._gradient_norms()
        balance = self._balance(draws, labels)
        terms |= balance
        self.is_whole = False
        self._apply(terms, signals, image_norms=image_norms, norms=self._gradient_norms() if balance else image_norms)
        self.step += 1
        self._average()
        self.is_whole = True
        return terms

    def _accumulate(self, inputs: Inputs, labels: Tensor) -> Terms:
        """Add up the gradients and terms of all micro-batches; again in smaller ones where memory runs out.

        Raises:
            DMPError: memory runs out, and the options do not allow smaller micro-batches.
        """
        while True:
            terms = dict.fromkeys(_TERMS, torch.zeros((), device=self.device))
            try:
                for part in self.micro_batches.parts():
                    added = self._denoise(inputs, labels, part)
                    terms = {name: terms[name] + added[name] for name in _TERMS}
                return terms
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Not in the handler: the error's frames hold what the failed micro-batch computed.
            self._start_again()
            if not self.micro_batches.halve():
                refusal = self.micro_batches.refusal(self.step + 1, lambda part: self._denoise(inputs, labels, part))
                self._start_again()
                raise refusal

    def _start_again(self) -> None:
        """Forget what the step at hand has computed so far."""
        self.optimizer.zero_grad(set_to_none=True)
        let_go_of_memory(self.device)

    def _denoise(self, inputs: Inputs, labels: Tensor, part: slice) -> Terms:
        """Add the gradients of one micro-batch; return its part of the loss terms."""
        loss, terms = self.objective.denoise(inputs, labels, part)
        self.scaler.scale(loss).backward()
        return terms

    def _balance(self, draws: Draws, labels: Tensor) -> Terms:
        """Add the gradients of the balance losses; return their terms."""
        loss, terms = self.objective.balance(draws, labels)
        if loss is not None:
            self.scaler.scale(loss).backward()
        return terms

    def _reduce(self, terms: Terms, stop: int | None) -> Tensor:
        """Sum the gradients and ``terms`` over all processes, in place.

        Returns how many processes received each of ``STOP_SIGNALS``, (k,).
        """
        if self.world.size == 1:
            return torch.zeros(len(STOP_SIGNALS), device=self.device)
        received = torch.tensor([float(stop == number) for number in STOP_SIGNALS])
        signals = to_device(received, self.device)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        self.world.add_up([*gradients, *terms.values(), signals])
        return signals

    def _gradient_norms(self) -> Tensor:
        """The norm of the gradient of each parameter that has one."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return torch.stack(torch._foreach_norm(gradients))

    def _apply(self, terms: Terms, signals: Tensor, *, image_norms: Tensor, norms: Tensor) -> None:
        """Do the optimizer's step. A step whose loss or gradient is not finite changes nothing and is counted.

        ``norms`` are the norms of all gradients, ``image_norms`` those without the balance losses.
        """
        finite = (norms.isfinite().all() & terms["loss"].isfinite()).float()
        self.guard.count(finite=finite, largest=image_norms.max(), signals=signals, step=self.step + 1)
        terms["skipped"] = 1 - finite
        if self.scaler.is_enabled():
            # The scaler finds the same gradients not finite, skips the step and lowers its scale.
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self._step_if(finite)
        for parameter in self.parameters:
            # The fused optimizer writes without counting it. What was computed of the values before would seem current.
            torch.autograd.graph.increment_version(parameter)

    def _step_if(self, finite: Tensor) -> None:
        """Do a step of the fused optimizer, which the device itself skips if ``finite`` is 0."""
        if self.device.type not in ("cpu", "cuda"):  # no fused optimizer there: this waits for the device
            if bool(finite):
                self.optimizer.step()
            return
        self.optimizer.found_inf = 1 - finite  # type: ignore[attr-defined]
        self.optimizer.step()

    def _average(self) -> None:
        if self.ema:
            # The decay starts near 0, so that the average forgets the first values, and grows to the configured one.
            decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
            live = [parameter.detach() for parameter in self.trainee.learnt.values()]
            torch._foreach_lerp_(list(self.ema.values()), live, 1 - decay)

    def state(self) -> RunState:
        """Everything that later steps depend on."""
        return RunState(
            step=self.step,
            learnt={name: parameter.detach() for name, parameter in self.trainee.learnt.items()},
            helpers=self.helpers(),
            optimizer=pack_optimizer(self.optimizer),
            ema=self.ema,
            scaler=self.scaler.state_dict(),
        )

    def restore(self, state: RunState) -> None:
        """Continue from ``state``, exactly as if the run had not been interrupted.

        Raises:
            CheckpointError: it is not the state of such a run; nothing was changed.
        """
        for there, expected in ((state.learnt, self.trainee.learnt), (state.helpers, self.helpers())):
            _check_same(there, expected)
        _check_same(state.ema, self.ema)
        unpack_optimizer(self.optimizer, state.optimizer)
        self.step = state.step
        with torch.no_grad():
            for name, parameter in self.trainee.learnt.items():
                parameter.copy_(state.learnt[name])
            for name, value in self.helpers().items():
                value.copy_(state.helpers[name])
            for name, value in self.ema.items():
                value.copy_(state.ema[name])
        if state.scaler:
            try:
                self.scaler.load_state_dict(state.scaler)
            except (KeyError, RuntimeError, TypeError) as error:
                raise CheckpointError(f"the checkpoint does not fit this run: its loss scaling: {error}") from error

    def helpers(self) -> dict[str, Tensor]:
        """What is trained too and is no part of the learnt file, by name."""
        noise = self.trainee.load_noise
        return {} if noise is None else {"load_noise.weight": noise.weight.detach()}


def _check_same(there: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError if names or shapes differ: a smaller tensor would be spread over a larger one."""
    for name in sorted({*there, *expected}):
        shapes = [None if name not in of else tuple(of[name].shape) for of in (there, expected)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"the checkpoint does not fit this run: {name[:80]} has shape {shapes[0]}, not {shapes[1]}"
            )
