"""The table of ``dmp patch``: equal blocks that follow each other have one row."""

from __future__ import annotations

from dmp_cli.commands.patch.folding import fold

from .conftest import Run, parse


def test_equal_neighbours_are_one_row() -> None:
    down = [["down_blocks.0.resnets.0", "32 x 32 x 8", "8"], ["down_blocks.0.resnets.1", "32 x 32 x 8", "8"]]
    rows = [
        *down,
        ["mid_block", "4 x 8", "9"],
        ["mid_block", "4 x 8", "9"],
        ["up.0", "4 x 8", "9"],
        ["up.2", "4 x 8", "9"],
    ]
    assert fold(rows) == [["down_blocks.0.resnets 0-1", "2 x (32 x 32 x 8)", "2 x 8"], *rows[2:]]
    other = [["blocks.0", "a", "1"], ["blocks.1", "b", "1"], ["blocks.2", "b", "1"]]
    assert fold(other) == [other[0], ["blocks 1-2", "2 x b", "2 x 1"]]
    assert fold([]) == []


def test_a_dit_has_one_row_of_blocks_and_json_all(run: Run) -> None:
    shown = run("patch", "--backbone", "dit-s2").stdout
    assert "blocks 0-11" in shown
    assert "12 x (256 x 384)" in shown
    assert "12 x 98,304" in shown
    assert "blocks.0" not in shown
    told = parse(run("patch", "--backbone", "dit-s2", "--json"))
    assert [block["name"] for block in told["blocks"]] == [f"blocks.{index}" for index in range(12)]
