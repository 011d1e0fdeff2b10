"""One optimizer step after the other around one trainee: the same for every method, on one process or many.

Letters: B images of the global batch, b of them in this process. Nothing here waits for the device: what a step did
stays there as tensors, and ``guards`` reads its counts when they are surely finished.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import TrainConfig
from ..data import Batch, as_floats
from ..diffusion import Schedule, denoising_loss
from ..patching import Balance, PatchedBackbone, authors_importance, measure_balance, measure_use
from ..runtime import World, autocast
from .checkpoint import RunState, pack_optimizer, unpack_optimizer
from .guards import Guard
from .lr_schedule import rate_factor
from .methods import Trainee
from .noise import Drawer, Draws, to_device

_TERMS = ("loss", "mse", "bound")
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Inputs:
    """A batch and its draws, on the device."""

    batch: Batch
    draws: Draws


class TrainingLoop:
    """Optimizer, average and step counter around one trainee."""

    def __init__(
        self, trainee: Trainee, config: TrainConfig, *, world: World | None = None, device: torch.device | None = None
    ) -> None:
        """``device``: where it computes, where that is not where the backbone's weights are; ``world``: None, alone."""
        backbone = trainee.backbone
        self.trainee, self.config, self.step = trainee, config, 0
        self.world, self.device = world or World(), device or backbone.device
        self.schedule = Schedule(backbone.schedule, device=self.device)
        groups = [{**group, "lr": group["rate"]} for group in trainee.groups]
        self.optimizer = torch.optim.AdamW(
            groups, betas=(0.9, 0.999), weight_decay=config.weight_decay, fused=self.device.type in ("cpu", "cuda")
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.dtype == "fp16")
        self.parameters = [parameter for group in trainee.groups for parameter in group["params"]]
        self.ema = {name: p.detach().clone() for name, p in trainee.learnt.items()} if config.ema else {}
        self.guard = Guard(config, self.device)
        self.places = self.world.share(config.batch_size)
        self.drawer = self._drawer()
        self._call: Callable[..., Tensor] = trainee.denoiser
        if config.compile:
            self._call = torch.compile(trainee.denoiser, dynamic=False)

    def _drawer(self) -> Drawer:
        backbone, denoiser = self.trainee.backbone, self.trainee.denoiser
        noisy = self.trainee.load_noise is not None and isinstance(denoiser, PatchedBackbone)
        return Drawer(
            config=self.config,
            places=self.places,
            sample_shape=backbone.sample_shape,
            num_timesteps=self.schedule.num_timesteps,
            has_posterior=self.trainee.codec.has_posterior,
            num_prompts=denoiser.patch.num_prompts if noisy and isinstance(denoiser, PatchedBackbone) else 0,
            drops=self._reads_condition and backbone.has_null and self.config.class_dropout > 0,
        )

    @property
    def _reads_condition(self) -> bool:
        return self.trainee.backbone.num_classes > 0 or self.trainee.backbone.takes_text

    def prepare(self, batch: Batch) -> Inputs:
        """The batch of a step with all that the step draws, on its way to the device; any thread may do this."""
        labels = to_device(batch.labels, self.device)
        values = to_device(batch.values, self.device)
        draws = self.drawer.draw(batch.step).to(self.device)
        return Inputs(replace(batch, values=values, labels=labels), draws)

    def advance(self, inputs: Inputs, *, stop: int | None = None) -> Terms:
        """One optimizer step on one global batch; the terms of its loss.

        ``stop`` is the number of a signal this process met; the guard tells it to all of them.
        """
        draws, batch = inputs.draws, inputs.batch
        assert batch.step == self.step
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * rate_factor(self.config, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        labels = self._labels(batch)
        terms = dict.fromkeys(_TERMS, torch.zeros((), device=self.device))
        count = len(self.places)
        each = self.config.micro_batch_size or count
        for first in range(0, count, each):
            done = self._denoise(inputs, labels, slice(first, min(first + each, count)))
            terms = {name: terms[name] + done[name] for name in _TERMS}
        signals = self._reduce(terms, stop)
        arrived = self._norms()  # from the images alone: a balance loss moves the gate whatever the backbone does
        balance = self._balance(draws, labels)
        terms |= balance
        self._apply(terms, signals, arrived=arrived, final=self._norms() if balance else arrived)
        self.step += 1
        self._average()
        return terms

    def _labels(self, batch: Batch) -> Tensor:
        """What each image is of, (b,): its class, or the index of its caption."""
        backbone = self.trainee.backbone
        if backbone.takes_text:
            assert batch.captions is not None
            return backbone.captions.indices(batch.captions).to(self.device)
        return torch.zeros_like(batch.labels) if backbone.num_classes == 1 else batch.labels

    def _denoise(self, inputs: Inputs, labels: Tensor, part: slice) -> Terms:
        """Loss and gradients of one micro-batch (its places in this process), weighted by its share of the batch."""
        draws, values, codec = inputs.draws, inputs.batch.values[part], self.trainee.codec
        everywhere = slice(self.places.start + part.start, self.places.start + part.stop)  # in the global batch
        posterior = None if draws.posterior is None else draws.posterior[part]
        measured = codec.measure(as_floats(values)) if values.dtype == torch.uint8 else values
        x0 = codec.draw(measured, noise=posterior)
        noise, timesteps = draws.noise[part], draws.timesteps[everywhere]
        xt = self.schedule.add_noise(x0, noise=noise, timesteps=timesteps)
        dropped = None if draws.dropped is None else draws.dropped[everywhere]
        condition = self._condition(labels[part], dropped)
        with self._gate_noise(draws, everywhere), autocast(self.device, self.config.dtype):
            prediction = self._call(xt, timesteps, condition)
        loss = denoising_loss(prediction, x0=x0, xt=xt, noise=noise, timesteps=timesteps, schedule=self.schedule)
        share = len(x0) / self.config.batch_size
        self.scaler.scale(loss.total.mean() * share).backward()
        means = {"loss": loss.total, "mse": loss.mse, "bound": loss.bound}
        return {name: of_each.detach().mean() * share for name, of_each in means.items()}

    def _condition(self, labels: Tensor, dropped: Tensor | None) -> Tensor | None:
        """The condition of samples of these labels, those that are ``dropped`` without one."""
        if not self._reads_condition:
            return None
        if dropped is None:
            return labels
        return torch.where(dropped, self.trainee.backbone.null_condition(len(labels)), labels)

    def _gate_noise(self, draws: Draws, places: slice) -> contextlib.AbstractContextManager[None]:
        """The authors' noisy logits for the samples at ``places``: std(t) * noise, where they are asked for."""
        denoiser, std = self.trainee.denoiser, self.trainee.load_noise
        rows = draws.gate_rows
        if not self.config.gate_noise or rows is None or std is None or not isinstance(denoiser, PatchedBackbone):
            return contextlib.nullcontext()
        own = rows[places, None]  # (b, 1, N)
        return denoiser.noisy(lambda vector: std(vector) * own)

    def _reduce(self, terms: Terms, stop: int | None) -> Tensor:
        """Add up the gradients and ``terms`` of all processes, in place; how many met SIGINT and SIGTERM, (2,)."""
        if self.world.size == 1:
            return torch.zeros(2, device=self.device)
        met = torch.tensor([float(stop == number) for number in (2, 15)])
        signals = to_device(met, self.device)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        self.world.add_up([*gradients, *terms.values(), signals])
        return signals

    def _balance(self, draws: Draws, labels: Tensor) -> Terms:
        """Balance losses over the whole global batch at once, as the gate needs no image; and how it is used.

        Every process computes them alike and adds the same gradients.
        """
        config, denoiser = self.config, self.trainee.denoiser
        if not isinstance(denoiser, PatchedBackbone) or denoiser.patch.gate is None:
            return {}
        condition = None
        if denoiser.patch.config.gate_input == "conditioning":
            condition = self._condition(self.world.gather(labels), draws.dropped)
        gating, top_k = denoiser.gating(draws.timesteps, condition), denoiser.patch.top_k
        if config.balance_losses == "authors":
            balance = Balance(authors_importance(gating.weights), gating.weights.new_zeros(()))
        else:
            rows = draws.gate_rows
            balance = measure_balance(gating, load_noise=self.trainee.load_noise, noise=rows, top_k=top_k)
        total = config.balance_importance * balance.importance + config.balance_load * balance.load
        if total.requires_grad and (config.balance_importance or config.balance_load):
            self.scaler.scale(total).backward()
        use = measure_use(gating.weights.detach())
        return {"importance": balance.importance.detach(), "load": balance.load.detach(), **use._asdict()}

    def _norms(self) -> Tensor:
        """The norm of each gradient that is there."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return torch.stack(torch._foreach_norm(gradients))

    def _apply(self, terms: Terms, signals: Tensor, *, arrived: Tensor, final: Tensor) -> None:
        """The optimizer's step; one with a loss or gradient that is not finite changes nothing and is counted.

        ``final`` are the gradients' norms, ``arrived`` those before the balance losses.
        """
        finite = (final.isfinite().all() & terms["loss"].isfinite()).float()
        self.guard.count(finite=finite, largest=arrived.max(), signals=signals, step=self.step + 1)
        terms["skipped"] = 1 - finite
        if self.scaler.is_enabled():
            # It finds the same gradients not finite, skips the step and lowers its scale.
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self._step_if(finite)

    def _step_if(self, finite: Tensor) -> None:
        """A step of the fused optimizer that the device itself leaves out where ``finite`` is 0."""
        if self.device.type not in ("cpu", "cuda"):  # no fused optimizer there: this waits for the device
            if bool(finite):
                self.optimizer.step()
            return
        self.optimizer.found_inf = 1 - finite  # type: ignore[attr-defined]
        self.optimizer.step()

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
