"""The gates of a patch on the page of scores: what ``dmp inspect-gates`` wrote into a folder.

Letters: T timesteps, L blocks, N prompts.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..analysis import timestep_in_words
from ..errors import MetricError
from ..report import PNG_SIGNATURE, Frames, Picture, Section, draw_image_grid, draw_scale
from ..storage import read_arrays, read_bounded

_FRAMES = 16  # timesteps that the slider stops at
_MOST_BLOCKS = 500
_MOST_WEIGHTS = 1 << 21  # of all blocks at one timestep, L * N: more than any model has, and than a page could show
_LONGEST_ROW = 512  # prompts
_MAP_SIDE = 192  # width of a map in pixels, roughly; of many maps half of it
_COLUMNS = 6  # maps in a row
_DEPTH_MAPS = {  # file name -> what the picture shows
    "usage": "Entropy and effective number of prompts of the gate, over timestep and block",
    "added": "Norm of the added mixture, and its share of the norm of the hidden state, over timestep and block",
    "comparison": "Divergence from the gate of another patch, over timestep and block",
}


def gates_sections(path: Path) -> list[Section]:
    """Build the sections that show the gates: maps at several timesteps, and pictures over timestep and depth.

    ``path`` is a folder that ``dmp inspect-gates`` wrote. Raises MetricError if its ``gates.npz`` is missing or cannot
    be read, or if a picture is not a PNG.
    """
    drawn = [
        Picture(png=_read_png(path / f"{name}.png"), alt=alt, wide=True)
        for name, alt in _DEPTH_MAPS.items()
        if (path / f"{name}.png").is_file()
    ]
    words = "The top of each map is pure noise, the bottom is the finished image. Blocks go from shallow to deep."
    depth = Section(heading="Gates over depth", paragraphs=[words], pictures=drawn)
    return [_over_timesteps(path), *([depth] if drawn else [])]


def _read_png(path: Path) -> bytes:
    data = read_bounded(path, kind=MetricError)
    if not data.startswith(PNG_SIGNATURE):
        raise MetricError(f"{path} is not a PNG", hint="Run dmp inspect-gates again, with --force.")
    return data


def _over_timesteps(path: Path) -> Section:
    """A section with the gate weights of every block at one timestep; a slider changes the timestep."""
    weights, timesteps = _read_gates(path / "gates.npz")
    chosen = np.linspace(0, len(timesteps) - 1, min(_FRAMES, len(timesteps))).round().astype(int)
    low, high = float(weights[chosen].min()), float(weights[chosen].max())
    levels = (weights[chosen] - low) / max(high - low, 1e-12)  # the same scale in all maps
    shape = _map_shape(weights.shape[2])
    side = _MAP_SIDE if weights.shape[1] <= 2 * _COLUMNS else _MAP_SIDE // 2
    columns = min(_COLUMNS, weights.shape[1])
    pictures = []
    for level, place in zip(levels, chosen, strict=True):
        maps = [_shade(_as_map(block, shape), side=side) for block in level]
        labels = [f"block {index}" for index in range(len(maps))]
        png = draw_image_grid(maps, rows=-(-len(maps) // columns), columns=columns, labels=labels)
        pictures.append(
            Picture(
                png=png, alt=f"Gate weights of {len(maps)} blocks at timestep {timestep_in_words(timesteps[place])}"
            )
        )
    frames = Frames(pictures=pictures, names=[timestep_in_words(timesteps[place]) for place in chosen], what="Timestep")
    words = (
        "There is one map for each block. Each prompt has a place in the map; a light place has a large weight. "
        f"All maps share one scale, from {low:.2g} to {high:.2g}."
    )
    bar = draw_scale(low, high, what="gate weight")
    scale = Picture(png=bar, alt=f"The scale of all maps: from {low:.2g}, dark, to {high:.2g}, light")
    return Section(heading="Gates over timesteps", paragraphs=[words], frames=[frames], pictures=[scale])


def _map_shape(num_prompts: int) -> tuple[int, int]:
    """The sides of a map: a square, or a row where a few prompts form none."""
    side = math.isqrt(num_prompts - 1) + 1
    return (1, num_prompts) if side * side != num_prompts <= _LONGEST_ROW else (side, side)


def _as_map(levels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Levels (N,) as a map; places beyond the last prompt are dark."""
    return np.pad(levels, (0, math.prod(shape) - len(levels))).reshape(shape)


def _read_gates(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The gate weights (T, L, N) and the timesteps (T,). Raises MetricError for anything else."""
    hint = "Give a folder that dmp inspect-gates wrote."
    try:
        found = read_arrays(path, ("weights", "timesteps"), kind=MetricError)
    except MetricError as error:
        raise MetricError(error.message, hint=hint) from error
    weights, timesteps = found.get("weights"), found.get("timesteps")
    if weights is None or timesteps is None or weights.ndim != 3 or timesteps.shape != weights.shape[:1]:
        raise MetricError(f"{path} holds no gate weights (T, L, N) and timesteps (T,)", hint=hint)
    if 0 in weights.shape or weights.dtype.kind != "f" or timesteps.dtype.kind not in "iuf":
        raise MetricError(f"{path} holds gate weights {weights.shape} of {weights.dtype}", hint=hint)
    if weights.shape[1] > _MOST_BLOCKS or weights.shape[1] * weights.shape[2] > _MOST_WEIGHTS:
        raise MetricError(f"{path} holds gate weights of {weights.shape[1]:,} blocks, {weights.shape[2]:,} prompts")
    if not np.isfinite(weights).all():
        raise MetricError(f"{path}: its gate weights are not all finite", hint=hint)
    return weights, timesteps


def _shade(levels: np.ndarray, *, side: int) -> np.ndarray:
    """Levels in 0..1 (H, W) -> grey image (H', W', 3), where each prompt is a square of pixels."""
    grey = (255 * levels).round().astype(np.uint8)
    size = max(1, side // max(levels.shape))
    height = side if len(levels) == 1 else size
    return np.repeat(np.repeat(np.stack([grey] * 3, axis=-1), height, axis=0), size, axis=1)
