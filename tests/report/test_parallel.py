"""The parallel plot: lines at their heights, those that stop short, and the same bytes for the same numbers."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from dmp_cli.report import LINES, Column, draw_parallel

COLUMNS = [
    Column("lr", [0.0, 0.5, 1.0], [(0.0, "1e-05"), (1.0, "0.01")]),
    Column("$gate_{x", [0.0, 1.0, None], [(0.0, "linear"), (1.0, "attention")]),
    Column("loss", [0.0, 1.0, None], [(0.0, "0.5"), (1.0, "0.6")]),
]


def has(png: bytes, colour: str) -> bool:
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)
    return bool((pixels == wanted).all(axis=1).any())


def test_lines_and_marks() -> None:
    shades = [0.0, 1.0, None]
    plain = draw_parallel(COLUMNS, shades=shades)
    marked = draw_parallel(COLUMNS, shades=shades, marked={0: "defaults", 1: "trial 1"})
    assert [has(plain, LINES[0]), has(marked, LINES[0]), has(marked, LINES[1])] == [False, True, True]
    assert draw_parallel(COLUMNS, shades=shades) == plain
    alone = [Column(column.name, column.heights[:1], column.ticks) for column in COLUMNS]
    assert not has(draw_parallel(alone, shades=[None]), LINES[0])
