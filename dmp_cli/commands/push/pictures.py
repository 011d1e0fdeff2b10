"""The pictures of a card: samples of base and patched, and the weights of the gate."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import NetworkOptions
from ...errors import ConfigError, DMPError
from ..console import Printer

if TYPE_CHECKING:
    from ...config import PatchRecord

_SHOWN = 8  # images of each of base and patched
_LARGEST = 100_000_000  # bytes of a picture
# Settings of samples that may differ where both were drawn from the same noise.
_NOT_NOISE = {"strength", "against_scale", "against_interval", "dtype"}


def read_picture(path: Path, *, name: str) -> bytes:
    """The bytes of a PNG. Raises ConfigError when it is none."""
    from ...report import PNG_SIGNATURE
    from ...storage import read_regular

    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigError(f"{name} {path}: a card shows a picture of up to {_LARGEST // 1_000_000} MB")
        content = read_regular(path)
    except OSError as error:
        raise ConfigError(f"{name} {path} cannot be read: {error.strerror or error}") from error
    if not content.startswith(PNG_SIGNATURE):
        raise ConfigError(f"{name} {path} is no PNG", hint="Give a grid.png of dmp sample, or another PNG.")
    return content


def newest_grid(run: Path) -> Path | None:
    """The newest sample grid of a run; None: it has none."""
    return max((run / "samples").glob("step-????????.png"), default=None)


def describe_grid(grid: Path) -> str:
    """What a sample grid of a run shows, in a sentence."""
    from ...training import RunFolder

    steps = f"{int(grid.stem.rpartition('-')[2]):,} steps"
    with contextlib.suppress(DMPError):
        if "sample_grids" in (RunFolder(grid.parent.parent).read_settings() or {}):
            return f"Pairs of the same noise: left the backbone, right the patched one after {steps}."
    return f"Drawn by the patched backbone after {steps}."


def draw_pairs(report: Mapping[str, Any] | None) -> bytes | None:
    """The first images of the base above those of the last folder of a report, of the same noise each.

    None: the folders are not here any more, or they were not drawn from the same noise.
    """
    from ...evaluation import draw_rows, read_first_images

    try:
        rows = list((report or {})["rows"])
        base, patched = rows[0], rows[-1]
        if len(rows) < 2 or _noise(base) != _noise(patched):
            return None
        pictures = [read_first_images(Path(row["samples"]), count=_SHOWN) for row in (base, patched)]
        return draw_rows(pictures, labels=["base", "patched"])
    except (DMPError, KeyError, TypeError, OSError, AssertionError):
        return None


def _noise(row: Mapping[str, Any]) -> dict[str, Any]:
    sample = row["made"]["made"]["sample"]
    return {name: value for name, value in sample.items() if name not in _NOT_NOISE}


def gates_picture(
    patch: Path, record: PatchRecord, asked: str | None, network: NetworkOptions, printer: Printer
) -> bytes | None:
    """The picture of ``--gates``, or one that is drawn where the backbone is here; None: none is wanted or possible."""
    if asked == "none":
        return None
    if asked is not None:
        return read_picture(Path(asked) / "gates.png", name="--gates")
    if record.config.gate == "none":
        return None
    try:
        return _draw_gates(patch, network)
    except DMPError as error:
        printer.note(f"no picture of the gates: {error.message}. Give one with --gates, or leave it out with none")
        return None


def _draw_gates(patch: Path, network: NetworkOptions) -> bytes:
    from ...analysis import draw_gates
    from ...patching import attach, load_patch
    from ...pipeline import load_backbone_of
    from ..gates_over_time import square_grid, weights_over_time

    loaded = load_patch(patch)
    patched = attach(load_backbone_of(loaded, network, "cpu"), loaded)
    weights, timesteps, *_ = weights_over_time(patched)
    on_image = patched.patch.num_prompts and patched.patch.config.position == "add"
    grid = square_grid(weights.shape[2]) if on_image else None
    return draw_gates(weights, timesteps, title="Gate weights", grid=grid)
