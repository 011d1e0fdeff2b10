"""The DiT of diffusers, ``DiTTransformer2DModel``, as it runs in a stock ``DiTPipeline``, as a backbone for patches.

Its blocks compute the timestep embedding each for itself. So a hook on the model computes it once in front of them, for
the gate to read. Letters: B batch, N tokens, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..config import BackboneHints, GateInput
from ..storage import Weights
from .base import Backbone, Block
from .dit_weights import DIFFUSERS_CLASS, read


class ReadTimestep(nn.Module):
    """Maps timesteps (B,) to the vector (B, D) that the gate reads, by the embedder of the first block."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._first = (model.transformer_blocks[0],)  # in a tuple, so that it is not a module of this one

    def forward(self, timesteps: Tensor) -> Tensor:
        embedding = self._first[0].norm1.emb
        features = embedding.time_proj(timesteps.reshape(-1))
        return embedding.timestep_embedder(features.to(embedding.timestep_embedder.linear_1.weight.dtype))  # (B, D)


class _ReadFirst:
    """Pre-hook on the model: the gate's vector is computed before the first block."""

    def __init__(self, reader: ReadTimestep) -> None:
        self.reader = reader

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.reader(args[1] if len(args) > 1 else kwargs["timestep"])


class StockDiT(Backbone):
    """A DiT of diffusers as it is, for patches that were trained on the same weights under the same arithmetic.

    Diffusers computes timesteps otherwise than the code that trained Meta's weights; its sizes say which way it is.
    """

    family = "dit"
    has_null = True

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        config = self._read({})[0]
        first = model.transformer_blocks[0].norm1.emb.time_proj.downscale_freq_shift
        arithmetic = {"freq_shift": float(first), "mlp_norm_eps": model.config["norm_eps"]}
        self._sizes = {**config.model_dump(), **arithmetic}
        self.num_classes, self.learns_sigma = config.num_classes, config.learn_sigma
        self.gate_width, self._tokens = config.hidden_size, config.grid**2
        self.sample_shape = (config.in_channels, config.input_size, config.input_size)
        hooks = [hook for hook in model._forward_pre_hooks.values() if isinstance(hook, _ReadFirst)]
        self._reader = (hooks[0].reader if hooks else ReadTimestep(model),)

    def _read(self, tensors: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        """The sizes and the tensors under the names of the public checkpoints. Raises CheckpointError."""
        weights = Weights(tensors, {}, dict(self.model.config), path=Path(DIFFUSERS_CLASS))
        return read(weights, BackboneHints(trained_with="diffusers"))

    @property
    def core(self) -> nn.Module:
        return self.model

    @property
    def sizes(self) -> dict[str, Any]:
        return self._sizes

    def list_blocks(self) -> list[Block]:
        shape = (self._tokens, self.gate_width)
        return [Block(f"blocks.{index}", block, shape) for index, block in enumerate(self.model.transformer_blocks)]

    @property
    def gate_sources(self) -> dict[GateInput, nn.Module]:
        return {"timestep": self._reader[0]}

    def run_sources_first(self) -> RemovableHandle:
        return self.model.register_forward_pre_hook(_ReadFirst(self._reader[0]), with_kwargs=True)

    def gate_vector(self, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        return self._reader[0](timesteps)

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.model(x, timestep=timesteps, class_labels=condition, return_dict=False)[0]

    def null_condition(self, count: int) -> Tensor:
        return torch.full((count,), self.num_classes, dtype=torch.int64, device=self.device)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs:  # as a part of another module
            return super().state_dict(*args, **kwargs)
        return self._read(self.model.state_dict())[1]

    def derived_tensors(self) -> set[str]:
        return {"pos_embed"}  # the model keeps none of its own
