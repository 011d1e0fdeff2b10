"""Heatmaps of gate weights, as PNG bytes. Letters: T timesteps, L blocks, N prompts of one block."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..config import DEAD_SHARE
from ..report import FAINT, HEAD, INK, LINES, TEXT, Box, add_axes, hide_spines, new_figure, png_bytes
from . import gate_weights as gates
from .gate_weights import noisiest_first, timestep_in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NUM_MAPS = 5  # maps over the image beside one heatmap
_HEAD_HEIGHT = 1.52  # inches
SMALL = 7.5  # points; pages show wide pictures at half their size
# The colour scale ends at one of these round numbers on each side of 1 (uniform). A nearly uniform gate then also looks
# nearly uniform.
_LOW_ENDS = (0.8, 0.5, 0.2, DEAD_SHARE)  # the last one draws dead prompts in black
_HIGH_ENDS = (1.25, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


class _Gate(NamedTuple):
    """Gate weights that are ready to be drawn, with the noisiest timestep first."""

    relative: np.ndarray  # (T, L, N) weight * N, so that 1 is uniform
    effective: np.ndarray  # (T, L) effective number of prompts
    timesteps: np.ndarray  # (T,) noise first
    picks: list[int]  # rows that are also shown as maps, from noise to image
    limits: tuple[float, float]  # ends of the colour scale, in units of ``relative``
    grid: tuple[int, int] | None  # rows and columns of the prompts in the image; None if they have no place in it

    def colours(self) -> dict[str, Any]:
        """The colour scale and colour map, as options of matplotlib's ``imshow``."""
        from matplotlib.colors import LogNorm

        return {"norm": LogNorm(*self.limits, clip=True), "cmap": "magma"}


def draw_gates(weights: np.ndarray, timesteps: np.ndarray, *, title: str, grid: tuple[int, int] | None = None) -> bytes:
    """Draw all blocks, from shallow to deep, as heatmaps over timestep and prompt (paper, Figure 4).

    ``weights`` is (T, L, N), ``timesteps`` (T,) in any order. If the prompts have places in the image, ``grid`` is the
    number of their rows and columns, with rows * columns = N; the weights at five timesteps are then also drawn as maps
    over the image. Brighter means stronger. All blocks share one colour scale, logarithmic around the uniform weight
    1/N.

    Raises:
        PatchError: the weights are not valid; see ``gate_weights.shares``.
    """
    gate = _prepare(weights, timesteps, grid=grid)
    num_blocks = weights.shape[1]
    columns = 2 if num_blocks == 4 else min(num_blocks, 3)
    rows = -(-num_blocks // columns)
    cell = Box(0, 0, 2.75 if grid else 2.2, 2.62)
    head, left = _HEAD_HEIGHT, 0.55
    figure = new_figure(left + max(columns * cell.width, 6.2), head + rows * cell.height + 0.05)
    ends = "(left) to deep (right)" if rows == 1 else "(top left) to deep (bottom right)"
    order = [f"Blocks from shallow {ends}."] if num_blocks > 1 else []
    _draw_head(figure, gate, title=title, notes=[*order, _note(gate)])
    for block in range(num_blocks):
        row, column = divmod(block, columns)
        box = Box(left + column * cell.width, head + row * cell.height, 1.8, 2.2)
        heat = _draw_block_panel(figure, gate, block=block, box=box)
        heat.tick_params(labelleft=column == 0)
        if column == 0:
            heat.set_ylabel("image  ←  timestep  →  noise", fontsize=SMALL, color=FAINT, labelpad=2)
        if block + columns >= num_blocks:
            heat.set_xlabel("prompt index", fontsize=SMALL, color=FAINT, labelpad=2)
    return png_bytes(figure)


def draw_block(
    weights: np.ndarray, timesteps: np.ndarray, *, block: int, title: str, grid: tuple[int, int] | None = None
) -> bytes:
    """Draw one block in large, with its effective number of prompts over the timesteps.

    The colour scale is that of all blocks, so ``weights`` (T, L, N) holds all of them. The other arguments and the
    errors are as for :func:`draw_gates`.
    """
    gate = _prepare(weights, timesteps, grid=grid)
    figure = new_figure(7.85 if grid else 6.75, _HEAD_HEIGHT + 4.7)
    _draw_head(figure, gate, title=title, notes=[_note(gate)])
    heat = _draw_block_panel(figure, gate, block=block, box=Box(1.95, _HEAD_HEIGHT, 4.6, 4.1))
    heat.set_xlabel("prompt index", fontsize=TEXT, color=FAINT)
    heat.tick_params(labelleft=False, labelsize=TEXT)
    _draw_profile(figure, gate, block=block, box=Box(0.62, _HEAD_HEIGHT, 1.0, 4.1))
    return png_bytes(figure)


def _prepare(weights: np.ndarray, timesteps: np.ndarray, *, grid: tuple[int, int] | None) -> _Gate:
    num_prompts = weights.shape[2]
    assert grid is None or grid[0] * grid[1] == num_prompts, "the grid has one cell per prompt"
    order = noisiest_first(np.asarray(timesteps))
    shares = gates.shares(weights)[order]  # (T, L, N)
    picks = np.unique(np.linspace(0, len(order) - 1, _NUM_MAPS).round().astype(int))
    return _Gate(
        relative=shares * num_prompts,
        effective=np.exp(gates.entropy_of(shares)),
        timesteps=np.asarray(timesteps)[order],
        picks=[int(pick) for pick in picks],
        limits=_limits(shares * num_prompts),
        grid=grid,
    )


def _limits(relative: np.ndarray) -> tuple[float, float]:
    """Round numbers around the weakest and the strongest weights, without the most extreme 1 % of the rows."""
    weakest = np.quantile(relative.min(-1), 0.01)
    strongest = np.quantile(relative.max(-1), 0.99)
    low = next((end for end in _LOW_ENDS if end <= weakest), _LOW_ENDS[-1])
    high = next((end for end in _HIGH_ENDS if end >= strongest), _HIGH_ENDS[-1])
    return low, high


def _draw_block_panel(figure: Figure, gate: _Gate, *, block: int, box: Box) -> Axes:
    heat = add_axes(figure, box)
    picture = _resample(gate.relative[:, block])
    num_rows, num_prompts = gate.relative.shape[0], gate.relative.shape[2]
    edges = (-0.5, num_prompts - 0.5, num_rows - 0.5, -0.5)
    heat.imshow(picture, **gate.colours(), aspect="auto", extent=edges)
    heat.set_yticks(gate.picks, [timestep_in_words(gate.timesteps[pick]) for pick in gate.picks])
    heat.set_xticks(sorted({0, num_prompts // 2, num_prompts - 1}))
    heat.tick_params(labelsize=SMALL, length=2, width=0.5, colors=FAINT, pad=1.5)
    hide_spines(heat, ("top", "right", "bottom", "left"))
    heat.set_title(f"Block {block}", loc="left", fontsize=TEXT, fontweight="bold", color=INK, pad=4)
    note = f"{gate.effective[:, block].mean():.{0 if num_prompts > 99 else 1}f} of {num_prompts} effective"
    heat.set_title(note, loc="right", fontsize=SMALL, color=FAINT, pad=4)
    if gate.grid:
        _draw_maps(figure, gate, block=block, box=box, heat=heat, grid=gate.grid)
    return heat


def _resample(weights: np.ndarray) -> np.ndarray:
    """Average the timesteps to about one per pixel and repeat the prompts, so that drawing skips no row or column."""
    step = max(1, len(weights) // 300)
    starts = np.arange(0, len(weights), step)
    sizes = np.diff(starts, append=len(weights))
    means = np.add.reduceat(weights, starts) / sizes[:, None]  # (about 300, N)
    tall = np.repeat(means, max(1, 300 // len(means)), axis=0)
    return np.repeat(tall, max(1, 1000 // weights.shape[1]), axis=1)


def _draw_maps(figure: Figure, gate: _Gate, *, block: int, box: Box, heat: Axes, grid: tuple[int, int]) -> None:
    """Draw one map over the image per picked timestep, each joined by a line to its row of the heatmap."""
    from matplotlib.patches import ConnectionPatch

    gap, lead = 0.02 * box.height, 0.06 * box.height
    side = (box.height - gap * (_NUM_MAPS - 1)) / _NUM_MAPS
    for place, pick in enumerate(gate.picks):
        top = box.top + place * (side + gap)
        axes = add_axes(figure, Box(box.left + box.width + lead, top, side, side))
        axes.imshow(gate.relative[pick, block].reshape(grid), **gate.colours(), interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        hide_spines(axes, ("top", "right", "bottom", "left"))
        axes.set_anchor("W")
        label: dict[str, Any] = {
            "x": 1.08,
            "y": 0.5,
            "s": timestep_in_words(gate.timesteps[pick]),
            "va": "center",
            "ha": "left",
        }
        axes.text(**label, transform=axes.transAxes, fontsize=SMALL, color=FAINT)
        ends: dict[str, Any] = {"xyA": (1, 1 - (pick + 0.5) / len(gate.timesteps)), "xyB": (0, 0.5)}
        line = ConnectionPatch(**ends, coordsA=heat.transAxes, coordsB=axes.transAxes, color="#b0b0b0", lw=0.5)
        figure.add_artist(line)


def _draw_profile(figure: Figure, gate: _Gate, *, block: int, box: Box) -> None:
    """Draw the effective number of prompts over the timesteps, beside the heatmap; the other blocks are grey."""
    axes = add_axes(figure, box)
    rows = np.arange(len(gate.timesteps))
    for other in range(gate.effective.shape[1]):
        axes.plot(gate.effective[:, other], rows, color="#d8d8d8", lw=0.7)
    axes.plot(gate.effective[:, block], rows, color=LINES[0], lw=1.1)
    num_prompts = gate.relative.shape[2]
    axes.set(xlim=(0, num_prompts * 1.02), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks([0, num_prompts])
    axes.set_yticks(gate.picks, [timestep_in_words(gate.timesteps[pick]) for pick in gate.picks])
    axes.tick_params(labelsize=TEXT, length=2, width=0.5, colors=FAINT)
    axes.set_xlabel("effective prompts\n(grey: other blocks)", fontsize=TEXT, color=FAINT)
    axes.set_ylabel("image  ←  timestep  →  noise", fontsize=TEXT, color=FAINT)
    hide_spines(axes, ("top", "right"))


def _draw_head(figure: Figure, gate: _Gate, *, title: str, notes: list[str]) -> None:
    """Draw the title, and below it the notes and the colour bar, all at the left, where a phone shows them too."""
    from matplotlib.cm import ScalarMappable

    width, height = figure.get_size_inches()
    left = 0.12 / width
    words: dict[str, Any] = {"va": "center", "parse_math": False}
    figure.text(left, 1 - 0.24 / height, title, fontsize=HEAD, fontweight="bold", color=INK, **words)
    for line, note in enumerate(notes):
        figure.text(left, 1 - (0.5 + 0.17 * line) / height, note, fontsize=SMALL, color=FAINT, **words)
    bar = add_axes(figure, Box(0.55, 1.0, 2.3, 0.13))
    under, over = gate.relative.min() < gate.limits[0], gate.relative.max() > gate.limits[1]
    extend = ("both" if over else "min") if under else ("max" if over else "neither")
    mappable = ScalarMappable(**gate.colours())
    figure.colorbar(mappable, cax=bar, orientation="horizontal", extend=extend, extendfrac=0.05)
    bar.spines["outline"].set(edgecolor=FAINT, linewidth=0.5)
    ticks = _bar_ticks(*gate.limits)
    bar.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    bar.set_xticks([], minor=True)
    bar.tick_params(labelsize=SMALL, length=2, width=0.5, colors=FAINT, pad=1.5)
    bar.set_title("gate weight × N  (1 = uniform)", fontsize=SMALL, color=INK, pad=3)


def _note(gate: _Gate) -> str:
    return "Brighter is stronger." + (" Small maps: on the image." if gate.grid else "")


def _bar_ticks(low: float, high: float) -> list[float]:
    """The ticks of the colour bar: both ends, 1, and those round numbers between them whose labels have room."""
    ticks = [low, 1.0, high]
    room = 0.1 * math.log(high / low)
    for step in (10.0, 100.0, 0.5, 2.0, 5.0, 0.2, 20.0, 50.0, 200.0):
        if low < step < high and min(abs(math.log(step / tick)) for tick in ticks) > room:
            ticks.append(step)
    return sorted(ticks)
