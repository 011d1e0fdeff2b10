"""The seam: what loss, sampling and gates may ask of a backbone, whatever its family.

Letters: B batch, C, H, W of the space it denoises, N tokens, D width, T timesteps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..config import BackboneRecord, CodecRecord, GateInput, LevelRule, PipelineSampler, ScheduleConfig
from ..errors import CheckpointError, ConfigError
from .flow_shift import linear_mu

if TYPE_CHECKING:
    from .caption_table import CaptionTable
    from .own_sampling import OwnSampling


# Where the image is in a block's hidden state of image and text: in its last rows, in its first, or behind the text of
# each row of the batch, which differs in length.
Joined = Literal["last", "first", "behind"]


class Layout(NamedTuple):
    """Where the image's tokens are in one forward."""

    grid: tuple[int, int]  # their rows and columns
    text: Tensor | None = None  # how many tokens of text are in front of them in each row of the batch, (B,); "behind"


class Places(Protocol):
    """What tells where the image's tokens are in a forward; it can be copied and pickled with the hooks that ask it."""

    def layout_of(self, core: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout: ...


class Block(NamedTuple):
    """One block of a backbone. Prompts are added to its input."""

    name: str
    module: nn.Module
    hidden_shape: tuple[int, ...]  # of its input, and of its prompts: (N, D) for tokens, (H, W, C) for feature maps
    joined: Joined | None = None  # where the image is in its hidden state; None: the image is alone there


class Backbone(nn.Module, ABC):
    """A pretrained denoiser. Its state_dict has the keys of the public checkpoints, and they never change."""

    family: ClassVar[str]
    lora_targets: ClassVar[tuple[str, ...]] = ()  # names, inside a block, of the layers that LoRA adapts by default
    scaled_layers: ClassVar[tuple[str, ...]] = ()  # likewise: the last of attention and MLP, which DiffFit scales
    class_table: ClassVar[str | None] = None  # name of the weights that embed classes, where there are any
    record: BackboneRecord | None = None  # where the weights came from; None for a backbone made in code
    recorded_stamp: tuple[tuple[int, int], ...] = ()  # the stamp() of the weights that ``record`` describes
    codec: CodecRecord | None = None  # the codec that its weight file names, or None
    schedule: ScheduleConfig = ScheduleConfig()  # noise schedule that the backbone was trained with
    trained_as: ClassVar[ScheduleConfig | None] = None  # of a family that is a flow always
    flow_sampler: PipelineSampler | None = None  # of a rectified flow: as its pipeline says, else as published
    even_levels: ClassVar[bool] = False  # whether its pipeline gives its scheduler equal steps of the level
    whole_timesteps: ClassVar[bool] = False  # or of the timestep, cut to whole ones
    own_sampling: OwnSampling | None = None  # how the pipeline of the weights draws images; None: there is none
    remarks: tuple[str, ...] = ()  # what was assumed or passed over when it was read, in words

    sample_shape: tuple[int, int, int]  # (C, H, W) of one sample in the space it denoises
    num_classes: int  # 0: the backbone takes no class
    has_null: bool  # whether it has a null condition, so that guidance and class dropout are possible
    learns_sigma: bool  # whether it predicts a variance too: (B, 2C, H, W) instead of (B, C, H, W)
    gate_width: int  # D of the vector that the gate reads
    channels_last: ClassVar[bool] = False  # whether it is faster on a GPU in this memory format
    overflows_fp16: ClassVar[bool] = False  # whether its blocks have values beyond 65,504, which diffusers clips
    any_size: ClassVar[bool] = False  # whether it denoises samples of any size
    takes_more_tokens: ClassVar[bool] = True  # whether a block does: --position prepend needs it
    has_layout: ClassVar[bool] = False  # whether layout_of says where the image's tokens are
    image_output: ClassVar[int | None] = None  # where the image is in what a block returns; None: it is all of it
    embedded_guidance: float | None = None  # scale of guidance that it reads itself, as distilled; None: it reads none

    takes_text: bool = False  # whether its condition is an index into ``captions``, not a class
    other_negatives: ClassVar[bool] = False  # whether its pipeline encodes negative prompts in another way than prompts
    one_length: ClassVar[bool] = False  # whether the captions of one forward of the model must be of one length
    reads_mask: ClassVar[bool] = False  # whether it reads no token of a caption that the encoders' mask leaves out
    text_folder: Path | None = None  # the pipeline with its tokenizer and text encoder; or a file with the latter
    tokenizer_folder: Path | None = None  # where the tokenizer is, for a file; None: in the hub's local cache
    text_length: int | None = None  # tokens of a caption, where its pipeline lets one choose; None: its default
    _captions: CaptionTable | None = None

    @property
    def core(self) -> nn.Module:
        """The module with the public parameter names: the backbone itself, or the diffusers model that it wraps."""
        return self

    @property
    def captions(self) -> CaptionTable:
        """The captions used so far and their encodings. The first access loads the text encoder.

        Raises:
            CheckpointError: the place of the text encoder is not known.
        """
        if self._captions is None:
            from .text import load_text

            if self.text_folder is None:
                raise CheckpointError(
                    "this backbone reads text, but its weights come without a text encoder",
                    hint="Give the whole pipeline folder, which has model_index.json, or a text encoder with --text.",
                )
            self._captions = load_text(
                self.text_folder, tokenizer=self.tokenizer_folder, length=self.text_length, device=self.device
            )
        return self._captions

    def take_captions(self, captions: CaptionTable) -> None:
        """Use a table whose encoders were loaded before the backbone was, from the same place."""
        self._captions = captions

    def resize(self, height: int, width: int | None = None) -> None:
        """Set the sample size; without a ``width`` to a square. Only for a backbone with ``any_size``."""
        assert self.any_size
        self.sample_shape = (self.sample_shape[0], height, height if width is None else width)

    @property
    def level_rule(self) -> LevelRule:
        """How its own training draws noise levels."""
        return LevelRule()

    def dynamic_shift(self, own: PipelineSampler) -> float:
        """What its pipeline gives a scheduler with dynamic shifting, ``mu``, for samples of the present size."""
        return linear_mu(own, self.num_tokens)

    @property
    def side_multiple(self) -> int:
        """Sides of a sample are multiples of it."""
        return 1

    @property
    def largest_side(self) -> int | None:
        """The largest side of a sample; None: there is none."""
        return None

    @property
    def num_tokens(self) -> int:
        """How many tokens a sample of the present size has; of a backbone of feature maps, their places."""
        return self.sample_shape[1] * self.sample_shape[2]

    @property
    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """The sizes from which an empty backbone of the same shape is built, ready for JSON."""

    @abstractmethod
    def list_blocks(self) -> list[Block]:
        """The blocks in the order they run."""

    @property
    @abstractmethod
    def gate_sources(self) -> dict[GateInput, nn.Module]:
        """For each possible gate input, the module whose output (B, D) it is. A forward runs them all before block 0.

        ``timestep`` is always there. ``conditioning``, timestep plus class, is there if the backbone takes classes.
        """

    def run_sources_first(self) -> RemovableHandle | None:
        """Hook the model so that a forward runs the gate sources before block 0; None where it does so by itself."""
        return None

    @abstractmethod
    def gate_vector(self, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        """The gate's input (B, D) for integer timesteps (B,), outside a forward.

        It is the timestep embedding; with ``condition`` (B,) it is the conditioning, timestep plus class.
        """

    @abstractmethod
    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        """Make one denoising prediction: (B, C, H, W), or (B, 2C, H, W) with a learned variance.

        ``x`` is (B, C, H, W), ``timesteps`` (B,) in 0..T-1, ``condition`` the indices (B,) of classes or captions, or
        None.
        """

    @abstractmethod
    def null_condition(self, count: int) -> Tensor:
        """The null condition, ``count`` times: (count,). Only for a backbone with ``has_null``."""

    @property
    def places(self) -> Places | None:
        """What tells where the image's tokens are in a forward: its class. None: there are no tokens to tell."""
        return type(self) if self.has_layout else None

    def levels_of(self, timesteps: Tensor, x: Any) -> Tensor:
        """What :meth:`forward` calls timesteps, of what a pipeline calls ``core`` with beside its latents ``x``."""
        return timesteps

    @classmethod
    def layout_of(cls, core: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout:
        """Where the image's tokens are in the forward that ``core`` is called for. Only with ``has_layout``."""
        raise NotImplementedError

    @staticmethod
    def take_hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Read the hidden state from a block's call: the first argument, or the keyword ``hidden_states``."""
        return args[0] if args else kwargs["hidden_states"]

    @staticmethod
    def put_hidden(
        args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the same call with ``hidden`` in place of its hidden state."""
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    @classmethod
    def take_output(cls, output: Any) -> Tensor:
        """Read the image's hidden state from what a block returns."""
        found: Tensor = output if cls.image_output is None else output[cls.image_output]
        return found

    @classmethod
    def put_output(cls, output: Any, hidden: Tensor) -> Any:
        """What a block returns, with ``hidden`` in place of the image's hidden state."""
        if cls.image_output is None:
            return hidden
        return tuple(hidden if place == cls.image_output else part for place, part in enumerate(output))

    def initialise(self, *, seed: int) -> None:
        """Draw fresh weights for training from scratch. Raises ConfigError if the family does not support it."""
        raise ConfigError(f"training a {self.family} backbone from scratch is not supported")

    def derived_tensors(self) -> set[str]:
        """Names of tensors that follow from the sizes. The digest leaves them out, because some file formats do."""
        return set()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Identity and write count of every weight tensor. It differs after any change of the weights in memory."""
        return tuple((id(parameter), parameter._version) for parameter in self.parameters())

    def num_parameters(self) -> int:
        """Number of all weights, positions included."""
        return sum(parameter.numel() for parameter in self.parameters())
