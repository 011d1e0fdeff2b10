"""Transformers of diffusers as backbones: a family is one class here, whose attributes say all that differs.

Letters: B batch, N image tokens, D width, S tokens of a caption, E width of a token's state, P of a pooled one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..config import BackboneHints, ScheduleConfig
from ..errors import CheckpointError
from ..storage import Weights
from .base import Backbone, Block, Joined, Layout
from .row_groups import predict_in_groups
from .wrapped import Wrapped, build_model, class_of, fill, read_sizes, side_of


class Transformer(Wrapped):
    """A transformer over image tokens. A block's prompts are (N, D), one for each token at the size in its config.

    The image's hidden state must be alone in a block's call: first argument, or ``hidden_states`` by keyword.
    """

    takes_text = True
    has_null = True
    has_layout = True
    num_classes = 0

    block_lists: ClassVar[tuple[str, ...]] = ("transformer_blocks",)  # in the order they run
    embedder_at: ClassVar[str]  # the module whose output the gate reads
    features_at: ClassVar[str]  # the module that makes its input of timesteps or levels
    feature_scale: ClassVar[float] = 1  # what a level is multiplied by for ``features_at``
    reverses: ClassVar[bool] = False  # whether the model's own level is 1 minus ours
    core_scale: ClassVar[float] = 1  # what a level is multiplied by for the model's own ``timestep``
    side: ClassVar[int | None] = None  # of a latent, where the config does not say it
    packing: ClassVar[int] = 1  # side of the squares of latents that the caller makes one token of
    joined_in: ClassVar[Mapping[str, Joined]] = {}  # where the image is in lists whose blocks are given text too
    image_output: ClassVar[int | None] = None  # where the image is in what a block returns; None: it is all of it
    trained_as: ClassVar[ScheduleConfig | None] = None  # of a flow; None: a DDPM, whose scheduler says the noise
    even_levels: ClassVar[bool] = False  # whether its pipeline gives its scheduler equal steps of the level

    def __init__(self, model: Any) -> None:
        nn.Module.__init__(self)
        self.model = model
        channels = int(model.config["in_channels"]) // self.packing**2
        side = side_of(model.config.get("sample_size", self.side))
        self.sample_shape = (channels, side, side)
        self.learns_sigma = (model.config.get("out_channels") or 0) == 2 * channels
        self.gate_width = self.width_of_gate()

    def predict(self, x: Tensor, timesteps: Tensor, text: Mapping[str, Tensor]) -> Tensor:
        """One prediction for samples ``x`` (B, C, H, W); ``timesteps`` (B,) are as the model reads them.

        ``text`` is what the family's encoders give of B captions: ``states`` (B, S, E), ``pooled`` (B, P) and others.
        """
        raise NotImplementedError

    @classmethod
    def check(cls, model: Any, *, source: object) -> None:
        """Raise CheckpointError for a model of the right class that takes more than an image, a level and a caption."""

    def restore(self) -> None:
        """Fill buffers that no file holds, which have no values where the model was built on ``meta``."""

    def width_of_gate(self) -> int:
        """D of the vector that the embedder gives."""
        return int(self.embedder.linear_2.out_features)

    @property
    def embedder(self) -> Any:
        return self.model.get_submodule(self.embedder_at)

    @property
    def time_features(self) -> nn.Module:
        found: nn.Module = self.model.get_submodule(self.features_at)
        return found

    @property
    def side_multiple(self) -> int:
        """Sides of a sample must be multiples of this."""
        return self.packing * int(self.model.config["patch_size"])

    @property
    def num_tokens(self) -> int:
        """N of a sample of the present size."""
        _, height, width = self.sample_shape
        return (height // self.side_multiple) * (width // self.side_multiple)

    def list_blocks(self) -> list[Block]:
        config = self.model.config
        side = side_of(config.get("sample_size", self.side)) // self.side_multiple
        return self.blocks_of((side * side, config["num_attention_heads"] * config["attention_head_dim"]))

    def blocks_of(self, shape: tuple[int, int]) -> list[Block]:
        """The blocks of all lists, which are given image tokens of ``shape`` (N, D)."""
        return [
            Block(f"{name}.{index}", block, shape, self.joined_in.get(name))
            for name in self.block_lists
            for index, block in enumerate(self.model.get_submodule(name))
        ]

    @classmethod
    def layout_of(cls, core: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout:
        given = args[0] if args else kwargs["hidden_states"]  # (B, C, H, W)
        multiple = cls.packing * int(core.config["patch_size"])  # type: ignore[index]
        return Layout((given.shape[2] // multiple, given.shape[3] // multiple))

    def gate_vector(self, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        return super().gate_vector(self._own(timesteps, self.feature_scale))

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is None:
            raise ValueError(f"this backbone of the family {self.family} takes a caption for every image")
        own, text = self._own(timesteps, self.core_scale), self.captions.look_up(condition)
        if self.one_length:
            return predict_in_groups(self.predict, x, own, text, self.captions.lengths(condition))
        return self.predict(x, own, text)

    def levels_of(self, timesteps: Tensor, x: Any) -> Tensor:
        levels = timesteps / self.core_scale
        return 1 - levels if self.reverses else levels

    def _own(self, timesteps: Tensor, factor: float) -> Tensor:
        """Timesteps or levels as the model counts them."""
        own = 1 - timesteps if self.reverses else timesteps
        return own if factor == 1 else own * factor


class TransformerFamily:
    """What the registry asks of a family, for one class of :class:`Transformer`."""

    def __init__(self, kind: type[Transformer]) -> None:
        self.kind = kind

    def recognises(self, weights: Weights) -> bool:
        """Whether these weights belong to the family, by their config."""
        return class_of(weights) in self.kind.classes

    def build(self, weights: Weights, hints: BackboneHints) -> Backbone:
        """Load the backbone that ``weights`` hold: strictly, in float32, in eval mode. Raises CheckpointError."""
        with torch.device("meta"):
            backbone = self.build_empty(read_sizes(weights, hints), source=weights.path)
        backbone.restore()
        return fill(backbone, weights)

    def build_empty(self, sizes: dict[str, Any], *, source: object = "these sizes") -> Transformer:
        """Build a backbone of these sizes without its weights. Raises CheckpointError if it is not supported."""
        return self.wrap(build_model(sizes, self.kind.classes, source=source), source=source)

    def wrap(self, model: Any, *, source: object) -> Transformer:
        """Wrap a model that diffusers has built. Raises CheckpointError if it is not supported."""
        config, side = model.config, model.config.get("sample_size", self.kind.side)
        self.kind.check(model, source=source)
        backbone = self.kind(model)
        if self.kind.trained_as is not None:
            backbone.schedule = self.kind.trained_as
        if side_of(side) % backbone.side_multiple:
            raise CheckpointError(
                f"{source} is not supported: samples of side {side} are no multiple of {backbone.side_multiple}"
            )
        if backbone.largest_side is not None and side_of(side) > backbone.largest_side:
            raise CheckpointError(
                f"{source} is not supported: samples of side {side} are larger than its table of positions, which is "
                f"for {backbone.largest_side}"
            )
        known = (None, config["in_channels"], 2 * config["in_channels"], backbone.sample_shape[0])
        if config.get("out_channels") not in known:
            raise CheckpointError(
                f"{source} is not supported: it has {config['in_channels']} channels in and "
                f"{config['out_channels']} out (inpainting, depth or image variations)"
            )
        return backbone

    @staticmethod
    def read_sizes(weights: Weights, hints: BackboneHints) -> dict[str, Any]:
        """The sizes in a folder's config.json, or those that the header of a single file gave."""
        return read_sizes(weights, hints)
