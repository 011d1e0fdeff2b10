"""How a model that no family names is patched by hand: what is typed, and what a patch file records of it."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from .base import Frozen, Options, option, refuse
from .typed import Words, split_pairs

ImageAt = Literal["first", "last"]  # of the tokens of a sequence that holds text too
_MOST = 1 << 28  # numbers of one argument, more than any image takes
_SHAPE = re.compile(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8})*")


def _read_inputs(value: Any) -> Any:
    found = split_pairs(value, option="inputs", example="encoder_hidden_states=1x77x4096")
    for name, shape in found.items() if isinstance(found, dict) else ():
        if isinstance(shape, str) and not _SHAPE.fullmatch(shape):
            raise refuse(f"--inputs {name}={shape}: give a shape such as 1x77x4096")
    return {name: _sides(shape) for name, shape in found.items()} if isinstance(found, dict) else found


def _sides(shape: Any) -> Any:
    return tuple(map(int, shape.split("x"))) if isinstance(shape, str) else shape


def _read_image_at(value: Any) -> Any:
    return split_pairs(value, option="image-at", example="single_transformer_blocks=last")


Inputs = Annotated[dict[str, tuple[int, ...]], BeforeValidator(_read_inputs)]
ImageAts = Annotated[dict[str, ImageAt], BeforeValidator(_read_image_at)]


class ByHandOptions(Options):
    """``dmp patch`` for a model of diffusers that no family names."""

    panel: ClassVar[str | None] = "A model that no family names"

    block_lists: Words | None = option(
        "Patch a model of diffusers that no family names, to be trained in Python: its lists of blocks, in the order "
        "they run, such as transformer_blocks,single_transformer_blocks.",
        metavar="NAME,...",
    )
    timestep_module: str | None = option(
        "The module of such a model whose output, a vector for each image, the gate reads: the one that embeds the "
        "timestep, such as time_embed.timestep_embedder.",
        metavar="NAME",
    )
    image_at: ImageAts | None = option(
        "Where the image's tokens are in lists of such a model whose blocks get image and text as one sequence: first "
        "or last.",
        metavar="LIST=last,...",
    )
    inputs: Inputs | None = option(
        "Shapes of what such a model is called with, where they cannot be told from its config.",
        metavar="NAME=1x77x4096,...",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> ByHandOptions:
        if self.block_lists is None and (given := self.model_fields_set - {"block_lists"}):
            raise refuse(f"--{min(given).replace('_', '-')} is for a model by hand; name its --block-lists too")
        return self


class ByHandRecord(Frozen):
    """How a model was patched by hand, so that the patch is attached to it again."""

    block_lists: tuple[str, ...] = Field(min_length=1)
    timestep_module: str
    image_at: dict[str, ImageAt]
    latent: str  # the argument that is the noised image
    inputs: dict[str, tuple[int, ...]]  # shapes of what the model is called with for one image
    per_token: int | None = Field(ge=1)  # side of the squares of that image that are one token; None: it is tokens
    shapes: tuple[tuple[int, ...], ...]  # of the image's hidden state in each block: (N, D), or (H, W, C)
    gate_width: int = Field(ge=1)

    @model_validator(mode="after")
    def _is_possible(self) -> ByHandRecord:
        sizes = [*self.inputs.values(), *self.shapes]
        if any(side < 1 for shape in sizes for side in shape) or any(math.prod(shape) > _MOST for shape in sizes):
            raise refuse("a model by hand is called with shapes that no image has")
        latent = len(self.inputs.get(self.latent, ()))
        kinds = {len(shape) for shape in self.shapes}
        if (
            latent not in (3, 4)
            or kinds not in ({2}, {3})
            or (self.per_token is None) == (kinds == {2} and latent == 4)
        ):
            raise refuse("a model by hand is given neither tokens nor maps of an image")
        if not self.image_at.keys() <= {*self.block_lists}:
            raise refuse("a model by hand says where the image is in a list that it does not name")
        return self
