"""A model of diffusers that no family names, patched by hand: somebody names its blocks and its timestep module.

How images become what it is called with is not known here. So a patch of it is trained, and images are drawn, by code
of one's own; the patch is attached there as to any model.

Letters: B batch, H, W sides of the noised image or a map, C channels, N image tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..config import BackboneRecord, ByHandRecord, ImageAt, build
from ..errors import CheckpointError
from ..storage import digest_tensors
from .base import Backbone, Block, Layout
from .dry_forward import TIMES, Shape, check_arguments, dry_forward, stand_ins
from .image_shapes import image_shapes
from .wrapped import Wrapped

FAMILY = "by-hand"


class _Reached(Exception):
    """A forward has come to the end of the timestep module."""


class TokenPlaces:
    """Where the image's tokens are in a forward of a model that is patched by hand."""

    def __init__(self, record: ByHandRecord) -> None:
        self.record = record

    def layout_of(self, core: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layout:
        """Rows and columns of the image's tokens. Raises ValueError where tokens are given that form no square."""
        given, per_token = args[0] if args else kwargs[self.record.latent], self.record.per_token
        if per_token is not None:
            return Layout((given.shape[2] // per_token, given.shape[3] // per_token))
        side = math.isqrt(given.shape[1])
        if side * side != given.shape[1]:
            raise ValueError(
                f"{given.shape[1]} tokens form no square, and in a model that is patched by hand nothing else tells "
                "their rows and columns"
            )
        return Layout((side, side))


class ByHand(Wrapped):
    """A model that no family names. It can be patched, and tells the gate's input; it makes no prediction here."""

    family = FAMILY
    takes_more_tokens = False
    any_size = False
    has_null = False
    num_classes = 0

    def __init__(self, model: Any, about: ByHandRecord) -> None:
        nn.Module.__init__(self)
        self.model, self.about = model, about
        self.gate_width = about.gate_width
        latent = about.inputs[about.latent]
        tokens = math.isqrt(math.prod(latent[1:-1]))
        self.sample_shape = (latent[1], latent[2], latent[3]) if len(latent) == 4 else (latent[-1], tokens, tokens)
        self.learns_sigma = False

    @property
    def places(self) -> TokenPlaces | None:
        return TokenPlaces(self.about) if len(self.about.shapes[0]) == 2 else None

    @property
    def embedder(self) -> Any:
        return self.model.get_submodule(self.about.timestep_module)

    def list_blocks(self) -> list[Block]:
        blocks = blocks_of(self.model, self.about.block_lists)
        return [
            Block(name, self.model.get_submodule(name), shape, self.about.image_at.get(one))
            for (name, one), shape in zip(blocks.items(), self.about.shapes, strict=True)
        ]

    def gate_vector(self, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        """The gate's input (B, D) for ``timesteps`` (B,) as the model itself is given them.

        The model runs up to its timestep module, once for each timestep, on stand-ins for all other arguments.
        """
        return torch.cat([self._vector_at(one) for one in timesteps.flatten().split(1)])

    @torch.no_grad()
    def _vector_at(self, timestep: Tensor) -> Tensor:
        found: list[Tensor] = []

        def note(module: nn.Module, args: Any, output: Tensor) -> NoReturn:
            found.append(output)
            raise _Reached

        given = stand_ins(self.about.inputs, next(self.model.parameters()))
        for name in given.keys() & {*TIMES}:
            given[name] = given[name] * timestep.to(given[name])
        handle = self.embedder.register_forward_hook(note)
        try:
            self.model(**given, return_dict=False)
        except _Reached:
            return found[0]
        except Exception as error:  # of stand-ins that another model was called with, or of a file that was forged
            raise CheckpointError(
                f"{type(self.model).__name__} does not run on what the patch says: {error}"
            ) from error
        finally:
            handle.remove()
        raise CheckpointError(f"a forward does not reach {self.about.timestep_module}")

    def forward(self, x: Tensor, timesteps: Tensor, condition: Tensor | None = None) -> Tensor:
        raise CheckpointError(
            f"how images become what a {type(self.model).__name__} is called with is not known: call it yourself",
            hint="See docs/by-hand.md; docs/adding-a-family.md says how dmp learns to train and sample it.",
        )


def wrap_by_hand(
    model: Any,
    *,
    block_lists: Sequence[str],
    timestep_module: str,
    image_at: Mapping[str, ImageAt] | None = None,
    inputs: Mapping[str, Shape] | None = None,
    source: str | None = None,
) -> Backbone:
    """A model of diffusers that no family names as a backbone that can be patched: for training by code of one's own.

    One forward, on stand-ins, shows what the blocks are given.

    Args:
        block_lists: names of its lists of blocks, in the order they run.
        timestep_module: the module whose output (B, D) the gate reads. It runs once, before the first block.
        image_at: for lists whose blocks get image and text as one sequence: ``first`` or ``last``.
        inputs: shapes of what the model is called with for one image, where its config does not tell them.
        source: what the record calls the place of its weights.

    Raises:
        CheckpointError: a name is wrong, the model does not run, or what it shows fits no patch. What is not known is
            asked for.
    """
    about = _look(model, tuple(block_lists), timestep_module, dict(image_at or {}), inputs or {})
    backbone = ByHand(model, about)
    backbone.record = BackboneRecord(
        family=FAMILY,
        sizes=backbone.sizes,
        source=source or type(model).__name__,
        digest=digest_tensors(backbone.state_dict()),
        by_hand=about,
    )
    backbone.recorded_stamp = backbone.stamp()
    return backbone


def _look(
    model: Any, block_lists: tuple[str, ...], module: str, image_at: dict[str, ImageAt], inputs: Mapping[str, Shape]
) -> ByHandRecord:
    """Run the model once, and say what that showed."""
    if unknown := sorted(image_at.keys() - {*block_lists}):
        raise CheckpointError(f"--image-at {unknown[0]}: it is none of the --block-lists, {', '.join(block_lists)}")
    blocks = blocks_of(model, block_lists)
    _check_module(model, module)
    seen = dry_forward(model, list(blocks), module, inputs)
    per_token, shapes = image_shapes(model, seen, {name: image_at.get(one) for name, one in blocks.items()})
    return build(
        ByHandRecord,
        block_lists=block_lists,
        timestep_module=module,
        image_at=image_at,
        latent=seen.latent,
        inputs=seen.inputs,
        per_token=per_token,
        shapes=shapes,
        gate_width=seen.vector[1],
    )


def as_by_hand(model: Any, record: BackboneRecord) -> Backbone:
    """Wrap a model of diffusers by what a patch records of the one that was patched by hand.

    Raises:
        CheckpointError: it is of another class, or has other lists of blocks.
    """
    assert record.by_hand is not None
    about = record.by_hand
    if type(model).__name__ != record.sizes.get("class"):
        raise CheckpointError(f"the patch is of a {record.sizes.get('class')}, and this is a {type(model).__name__}")
    count = len(blocks_of(model, about.block_lists))
    _check_module(model, about.timestep_module)
    check_arguments(model, about.inputs)
    if count != len(about.shapes):
        raise CheckpointError(f"the patch is of a model of {len(about.shapes)} blocks, and this one has {count}")
    return ByHand(model, about)


def blocks_of(model: nn.Module, block_lists: Sequence[str]) -> dict[str, str]:
    """The names of all blocks, and which of ``block_lists`` each is in; a single block stands for itself.

    Raises:
        CheckpointError: the model has no such list.
    """
    blocks: dict[str, str] = {}
    for one in block_lists:
        try:
            found: nn.Module | None = model.get_submodule(one)
        except AttributeError:
            found = None
        names = [f"{one}.{index}" for index in range(len(found))] if isinstance(found, nn.ModuleList) else [one]
        if found is None or not names or not one:
            lists = [name for name, part in model.named_children() if isinstance(part, nn.ModuleList)]
            raise CheckpointError(
                f"{type(model).__name__} has no list of blocks called {one}",
                hint=f"It has {', '.join(lists) or 'none'}.",
            )
        blocks |= dict.fromkeys(names, one)
    return blocks


def _check_module(model: nn.Module, name: str) -> None:
    try:
        model.get_submodule(name)
    except AttributeError:
        likely = [one for one, part in model.named_modules() if type(part).__name__ == "TimestepEmbedding"]
        raise CheckpointError(
            f"{type(model).__name__} has no module called {name}",
            hint=f"Its timestep embeddings are {', '.join(likely)}." if likely else "See its source in diffusers.",
        ) from None
