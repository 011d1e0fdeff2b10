"""What one training step minimises: the denoising loss of its images and the balance losses of its gate.

Letters: B images of the global batch, b of them in this process, N prompts of a block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backbones import compiled_around, framed, own_rows, withheld
from ..config import TrainConfig
from ..data import Batch, as_floats
from ..diffusion import SNR_GAMMA, make_process, make_weigh
from ..patching import Balance, Gating, PatchedBackbone, authors_importance, measure_balance, measure_use
from ..runtime import World, autocast
from .methods import Trainee
from .noise import Draws

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Inputs:
    """A batch and the random draws of its step, on the device."""

    batch: Batch
    draws: Draws


class Objective:
    """The losses of one trainee, without their gradients."""

    def __init__(
        self, trainee: Trainee, config: TrainConfig, *, places: range, world: World, device: torch.device
    ) -> None:
        """``places`` are the places of this process in the global batch."""
        self.trainee, self.config, self.places = trainee, config, places
        self.world, self.device = world, device
        self.process = make_process(trainee.backbone.schedule, device=device)
        gamma = config.snr_gamma or SNR_GAMMA
        self._weigh = make_weigh(config.loss_weight, trainee.backbone.schedule, gamma=gamma, device=device)
        self._call: Callable[..., Tensor] = trainee.denoiser
        if config.compile:
            self._call = compiled_around(trainee.denoiser, trainee.backbone)

    @property
    def is_conditional(self) -> bool:
        """Whether the backbone reads a class or a caption."""
        return self.trainee.backbone.num_classes > 0 or self.trainee.backbone.takes_text

    def labels(self, batch: Batch) -> Tensor:
        """The condition index of each image, (b,): its class, or the index of its caption."""
        backbone = self.trainee.backbone
        if backbone.takes_text:
            assert batch.captions is not None
            return backbone.captions.indices(batch.captions).to(self.device)
        return torch.zeros_like(batch.labels) if backbone.num_classes == 1 else batch.labels

    def denoise(self, inputs: Inputs, labels: Tensor, part: slice) -> tuple[Tensor, Terms]:
        """The loss of one micro-batch and its terms, both weighted by its share of the global batch.

        ``part`` selects the micro-batch among the b images of this process.
        """
        draws, values, codec = inputs.draws, inputs.batch.values[part], self.trainee.codec
        everywhere = slice(self.places.start + part.start, self.places.start + part.stop)  # in the global batch
        posterior = None if draws.posterior is None else draws.posterior[part]
        measured = codec.measure(as_floats(values)) if values.dtype == torch.uint8 else values
        x0 = codec.draw(measured, noise=posterior)
        noise, timesteps = draws.noise[part], draws.timesteps[everywhere]
        xt = self.process.add_noise(x0, noise=noise, timesteps=timesteps)
        dropped = None if draws.dropped is None else draws.dropped[everywhere]
        condition = self._condition(labels[part], dropped)
        frames = None if inputs.batch.frames is None else inputs.batch.frames[part]
        told = withheld.given(None if draws.withheld is None else draws.withheld[everywhere])
        noisy, frame = self._noisy_gate(draws, everywhere), framed.given(frames)
        with noisy, told, frame, autocast(self.device, self.config.dtype):
            prediction = self._call(xt, timesteps, condition)
        loss = self.process.loss(prediction, x0=x0, xt=xt, noise=noise, timesteps=timesteps)
        share = len(x0) / self.config.batch_size
        # The bound of a learned variance is a likelihood as it is: no weight.
        total = loss.total if self._weigh is None else self._weigh(timesteps) * loss.mse + loss.bound
        per_image = {"loss": total, "mse": loss.mse, "bound": loss.bound}
        terms = {name: values.detach().mean() * share for name, values in per_image.items()}
        return total.mean() * share, terms

    def _condition(self, labels: Tensor, dropped: Tensor | None) -> Tensor | None:
        """The condition for ``labels``, with the null condition where ``dropped`` is true."""
        if not self.is_conditional:
            return None
        if dropped is None:
            return labels
        return torch.where(dropped, self.trainee.backbone.null_condition(len(labels)), labels)

    def _noisy_gate(self, draws: Draws, places: slice) -> contextlib.AbstractContextManager[None]:
        """Context with the authors' noisy logits, std(t) * noise, at ``places``, if the options ask for them."""
        denoiser, std = self.trainee.denoiser, self.trainee.load_noise
        noise = draws.gate_noise
        if not self.config.gate_noise or noise is None or std is None or not isinstance(denoiser, PatchedBackbone):
            return contextlib.nullcontext()
        own = noise[places, None]  # (b, 1, N)
        return denoiser.noisy(lambda vector: std(vector) * own_rows(own))

    def balance(self, draws: Draws, labels: Tensor) -> tuple[Tensor | None, Terms]:
        """The balance loss of the gate and its terms, with statistics of how the gate is used.

        The gate needs no image, so every process computes this over the whole global batch and adds the same gradients.
        The loss is None if it has no gradient or no weight; the terms are empty without a gate.
        """
        config, denoiser = self.config, self.trainee.denoiser
        if not isinstance(denoiser, PatchedBackbone) or denoiser.patch.gate is None:
            return None, {}
        condition = None
        if denoiser.patch.config.gate_input == "conditioning":
            condition = self._condition(self.world.gather(labels), draws.dropped)
        parts = denoiser.patch.parts

        def read(rows: slice) -> Gating:
            return denoiser.gating(draws.timesteps[rows], None if condition is None else condition[rows])

        if config.balance_losses == "authors":
            gating = read(slice(None))
            own = [authors_importance(gating.weights[..., part]) for part in parts]
            balance = Balance(sum(own[1:], start=own[0]), gating.weights.new_zeros(()))
            use = measure_use(gating.weights.detach()[..., parts[0]])  # of prompts and experts, the prompts
        else:
            balance, use = measure_balance(
                read,
                count=len(draws.timesteps),
                each=denoiser.patch.gate_outputs * len(denoiser.patch.hidden_shapes),
                load_noise=self.trainee.load_noise,
                noise=draws.gate_noise,
                top_k=denoiser.patch.config.top_k,
                parts=parts,
            )
        loss = config.balance_importance * balance.importance + config.balance_load * balance.load
        has_effect = loss.requires_grad and (config.balance_importance or config.balance_load)
        terms = {"importance": balance.importance.detach(), "load": balance.load.detach(), **use._asdict()}
        return (loss if has_effect else None), terms
