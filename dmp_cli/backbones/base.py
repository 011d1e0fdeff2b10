"""The seam: the questions that loss, sampling, gates and engine may ask of a backbone, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..config import BackboneRecord, CodecRecord, GateInput, ScheduleConfig
from ..errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from .text import CaptionTable


class Block(NamedTuple):
    """One unit that prompts are added in front of."""

    name: str
    module: nn.Module
    hidden_shape: tuple[int, ...]  # of its prompts, as of its input: (N, D) for tokens, (H, W, C) for feature maps


class Backbone(nn.Module, ABC):
    """A pretrained denoiser. Its state_dict keys are those of its public checkpoints and never change."""

    family: ClassVar[str]
    lora_targets: ClassVar[tuple[str, ...]] = ()  # what its blocks call the layers of their attention and MLP
    record: BackboneRecord | None = None  # where the weights came from; None for one made in code
    recorded_stamp: tuple[tuple[int, int], ...] = ()  # of the weights that ``record`` names
    codec: CodecRecord | None = None  # the codec its own file names; None: it names none
    schedule: ScheduleConfig = ScheduleConfig()

    sample_shape: tuple[int, int, int]  # (C, H, W) of the space it denoises
    num_classes: int  # 0: takes no class
    has_null: bool  # whether guidance and class dropout are possible
    learns_sigma: bool  # whether its output carries a variance: (B, 2C, H, W) instead of (B, C, H, W)
    gate_width: int  # D of the vector the gate reads
    channels_last: ClassVar[bool] = False  # whether a GPU is faster with its maps in this memory format
    any_size: ClassVar[bool] = False  # whether it denoises samples of other sizes than its own

    takes_text: bool = False  # whether its condition is an index into ``captions``
    text_folder: Path | None = None  # the pipeline's folder that holds its tokenizer and text encoder
    _captions: CaptionTable | None = None

    @property
    def core(self) -> nn.Module:
        """The module whose names are the public ones: itself, or the model of diffusers that it wraps."""
        return self

    @property
    def captions(self) -> CaptionTable:
        """The captions met so far and their encodings; the text encoder is loaded when first asked for.

        Raises:
            CheckpointError: nothing says where its text encoder is.
        """
        if self._captions is None:
            from .text import load_text

            if self.text_folder is None:
                raise CheckpointError(
                    "this backbone reads text, and a denoiser alone holds no text encoder",
                    hint="Give the pipeline's whole folder, the one with model_index.json.",
                )
            self._captions = load_text(self.text_folder, device=self.device)
        return self._captions

    def resize(self, side: int) -> None:
        """Denoise samples of ``side`` from now on. Only where ``any_size``."""
        assert self.any_size
        self.sample_shape = (self.sample_shape[0], side, side)

    @property
    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """What rebuilds an empty backbone of this shape; JSON-ready."""

    @abstractmethod
    def list_blocks(self) -> list[Block]:
        """The blocks in the order they run."""

    @property
    @abstractmethod
    def gate_sources(self) -> dict[GateInput, nn.Module]:
        """What a gate can read -> the module whose output (B, D) it is; every forward runs each before the first block.

        ``timestep`` is always there; ``conditioning`` is the timestep and the class together, where there are classes.
        """

    @abstractmethod
    def gate_vector(self, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        """The vector (B, D) for integer timesteps (B,), outside a forward; with ``condition``, the conditioning."""

    @abstractmethod
    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        """One denoising prediction.

        ``x`` (B, C, H, W), ``timesteps`` (B,) in 0..T-1, ``condition`` indices (B,) of classes or captions, or None;
        gives (B, C, H, W), or (B, 2C, H, W) with a learned variance.
        """

    @abstractmethod
    def null_condition(self, count: int) -> Tensor:
        """The condition that stands for none, (count,). Only where ``has_null``."""

    @staticmethod
    def take_hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The hidden state in a block's call: the first argument, or ``hidden_states`` by name."""
        return args[0] if args else kwargs["hidden_states"]

    @staticmethod
    def put_hidden(
        args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with another hidden state."""
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def initialise(self, *, seed: int) -> None:
        """Fresh weights for training from scratch. ConfigError where the family leaves that to its own trainers."""
        raise ConfigError(f"training a {self.family} backbone from scratch is not known here")

    def derived_tensors(self) -> set[str]:
        """Tensors that the sizes alone determine; the digest leaves them out, as some containers do."""
        return set()

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Which tensors the weights are and how often each was written: another one after a change in memory."""
        return tuple((id(parameter), parameter._version) for parameter in self.parameters())

    def num_parameters(self) -> int:
        """All weights, positions included."""
        return sum(parameter.numel() for parameter in self.parameters())
