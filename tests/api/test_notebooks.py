"""The notebooks of docs/notebooks, run cell by cell as a kernel would, on the tiny models that they make."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def run_cells(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """The names that the code of a notebook leaves, and what each cell shows: the value of its last expression."""
    names: dict[str, Any] = {}
    shown = []
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{path.name}, cell {number}", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"{path.name}, cell {number}", "eval"), names)
            show = getattr(value, "_repr_html_", None)
            shown.append(value if show is None else show())
    return names, shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path: Path) -> None:
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 4
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)


@pytest.mark.slow
def test_a_pipeline_is_patched() -> None:
    names, shown = run_cells(FOLDER / "patch-a-pipeline.ipynb")
    assert "trained for 60 steps" in shown[2]
    assert "data:image/png" in shown[2]
    assert shown[-1] == (False, True)
    losses = names["losses"]
    assert sum(losses[-10:]) < sum(losses[:10])
    assert [one.tobytes() for one in names["images"]] != [one.tobytes() for one in names["bare"]]


@pytest.mark.slow
def test_gates_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    names, shown = run_cells(FOLDER / "read-gates.ipynb")
    assert "data:image/png" in shown[0]
    assert names["weights"].shape == (100, 2, 16)
    assert len(shown[1]) == 6
    assert shown[1][0][1] < shown[1][-1][1]
    assert shown[2].keys() == {"linear", "constant"}
    assert capsys.readouterr().out.count("effective prompts") == 2
