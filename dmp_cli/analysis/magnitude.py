"""The size of a patch's mixture, compared with the hidden state it is added to.

Letters: T timesteps, L blocks, B images.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..backbones import Backbone, Block
from ..config import MAX_PIXELS
from ..data import ImageSource, as_floats, center_crop, decode
from ..diffusion import make_process
from ..errors import DataError, PatchError
from ..latents import Codec, image_size
from ..patching import PatchedBackbone, prompted_blocks
from ..runtime import World, randomness
from ..storage import write_text
from .gate_weights import timestep_in_words


@dataclass(frozen=True)
class Added:
    """Norms at the input of each prompted block, over all places and channels, averaged over the images."""

    timesteps: np.ndarray  # (T,)
    added: np.ndarray  # (T, L) norm of the mixture, that is gate weights times prompts
    hidden: np.ndarray  # (T, L) norm of the hidden state it is added to
    ratio: np.ndarray  # (T, L) added / hidden of each image, averaged

    def to_json(self) -> dict[str, Any]:
        """The ratio of each block, averaged over the timesteps, with its definition."""
        return {
            "ratio": [float(ratio) for ratio in self.ratio.mean(0)],
            "definition": "norm of gate weights times prompts / norm of the hidden state at the block's input, on real "
            "images, mean over images and timesteps",
        }

    def save(self, folder: Path) -> None:
        """Write ``added.csv``, with one line per block and timestep."""
        buffer = io.StringIO()
        table = csv.writer(buffer, lineterminator="\n")
        table.writerow(["block", "timestep", "added_norm", "hidden_norm", "ratio"])
        for block in range(self.ratio.shape[1]):
            for row, timestep in enumerate(self.timesteps):
                numbers = (self.added[row, block], self.hidden[row, block], self.ratio[row, block])
                table.writerow([block, timestep_in_words(timestep), *(f"{number:.7g}" for number in numbers)])
        write_text(folder / "added.csv", buffer.getvalue())


def encode_some(
    images: ImageSource, *, backbone: Backbone, codec: Codec, count: int, seed: int, max_pixels: int = MAX_PIXELS
) -> tuple[Tensor, Tensor | None]:
    """Encode up to ``count`` images, spread evenly over a data set.

    Returns their latents (B, C, H, W) and their condition (B,). The condition is the classes or captions of the images.
    If the data set has none, it is the null condition, or class 0 for a backbone without one. It is None for an
    unconditional backbone.

    Raises:
        DataError: an image cannot be read, or the data set has more classes than the backbone knows.
    """
    indices = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)).tolist()
    size = image_size(codec, backbone)
    pixels = []
    for index in indices:
        name, channels = images.name(index), codec.image_channels
        image = decode(images.read(index), channels=channels, name=name, max_pixels=max_pixels)
        cut = np.array(center_crop(image, image_size=size))
        pixels.append(torch.from_numpy(cut.reshape(*cut.shape[:2], codec.image_channels)).permute(2, 0, 1))
    noise = None
    if codec.has_posterior:
        noise = randomness.normal("added-posterior", backbone.sample_shape, seed=seed, indices=indices)
        noise = noise.to(backbone.device)
    x0 = codec.encode(as_floats(torch.stack(pixels).to(backbone.device)), noise=noise)
    return x0, _condition(images, indices, backbone)


def _condition(images: ImageSource, indices: list[int], backbone: Backbone) -> Tensor | None:
    if backbone.takes_text:
        captions = [images.caption(index) if images.captioned[index] else "" for index in indices]
        return backbone.captions.indices(captions)
    if not backbone.num_classes:
        return None
    if not images.classes and backbone.has_null:
        return backbone.null_condition(len(indices))
    if len(images.classes) > backbone.num_classes:
        raise DataError(
            f"{images.path} has {len(images.classes)} classes, and the backbone knows {backbone.num_classes}"
        )
    return torch.from_numpy(images.labels[indices]).to(backbone.device)


@torch.inference_mode()
def measure_added(
    patched: PatchedBackbone,
    x0: Tensor,
    *,
    condition: Tensor | None,
    timesteps: Sequence[int | float],
    seed: int,
    world: World | None = None,
) -> Added:
    """Measure what a patch adds to the hidden states of latents ``x0`` (B, C, H, W) at each of ``timesteps``.

    The noise is a function of ``seed`` and the place in the batch. The processes of ``world``, which all call this,
    share the timesteps.

    Raises:
        PatchError: the patch adds nothing to a hidden state: its prompts are prepended, or no block has prompts.
    """
    if patched.patch.config.position == "prepend" or not patched.patch.num_prompts:
        raise PatchError("this patch adds nothing to a hidden state: its prompts are prepended, or it has none")
    process = make_process(patched.backbone.schedule, device=x0.device)
    shape = tuple(x0.shape[1:])
    noise = randomness.normal("added", shape, seed=seed, indices=list(range(len(x0)))).to(x0.device)
    world = world or World()
    blocks = prompted_blocks(patched.backbone.list_blocks(), patched.patch.config)
    found = torch.zeros(len(timesteps), len(blocks), 2, len(x0), device=x0.device)
    with _norms(patched, blocks) as pairs:
        for place in range(world.rank, len(timesteps), world.size):
            pairs.clear()
            at = torch.full((len(x0),), timesteps[place], device=x0.device)
            patched(process.add_noise(x0, noise=noise, timesteps=at), at, condition)
            found[place] = _by_block(pairs, len(blocks))
    world.add_up([found])  # to zeros, which changes no bit
    norms = found.double().cpu().numpy()  # (T, L, 2, B)
    added, hidden = norms[:, :, 0], norms[:, :, 1]
    return Added(np.asarray(timesteps), added.mean(-1), hidden.mean(-1), (added / hidden).mean(-1))


def _by_block(pairs: Sequence[tuple[Tensor, Tensor]], count: int) -> Tensor:
    """The norms of ``count`` blocks, (L, 2, B): a batch may take several forwards, each of which runs all blocks."""
    forwards = [pairs[start : start + count] for start in range(0, len(pairs), count)]
    return torch.cat([torch.stack([torch.stack(pair) for pair in own]) for own in forwards], dim=2)


@contextlib.contextmanager
def _norms(patched: PatchedBackbone, blocks: Sequence[Block]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Context in which each forward appends, for each prompted block, the norms (B,) of mixture and hidden state."""
    pairs: list[tuple[Tensor, Tensor]] = []
    before: list[Tensor] = []  # the hidden state of the current block, before the mixture is added
    take_hidden = type(patched.backbone).take_hidden

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        before.append(take_hidden(args, kwargs).float())

    def compare(module: Any, args: Any, kwargs: Any) -> None:
        hidden = before.pop()
        added = take_hidden(args, kwargs).float() - hidden
        pairs.append((added.flatten(1).norm(dim=1), hidden.flatten(1).norm(dim=1)))

    with contextlib.ExitStack() as hooks:
        for block in blocks:
            # ``keep`` runs before the patch's own hook, ``compare`` after it.
            for hook, first in ((keep, True), (compare, False)):
                handle = block.module.register_forward_pre_hook(hook, with_kwargs=True, prepend=first)
                hooks.callback(handle.remove)
        yield pairs
