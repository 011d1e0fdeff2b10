"""The building, read from its imports: draws ``docs/images/wings.svg`` and prints how large the building is.

python docs/wings.py              draw the picture anew, and print the measures
python docs/wings.py --check      fail where the committed picture is not current
python docs/wings.py --package P  only print the measures of another copy of the package, such as an older one
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PICTURE = Path(__file__).resolve().parent / "images" / "wings.svg"

# The wings and the modules beside them, lowest first: a line of code may import from those before its own.
WINGS = (
    *("version", "errors", "report", "storage", "config", "runtime", "hub", "diffusion", "data", "backbones"),
    *("latents", "texts"),
    *(
        "patching",
        "analysis",
        "sampling",
        "training",
        "evaluation",
        "pipeline",
        "jobs",
        "improvement",
        "ablation",
        "tuning",
        "demo",
    ),
    *("commands", "api", "cli", "__main__"),
)
PURPOSES = {
    "version": "one number",
    "errors": "what users can cause",
    "report": "pictures and pages",
    "storage": "files and weights",
    "config": "options and records",
    "runtime": "devices, processes",
    "hub": "patches to and fro",
    "diffusion": "noise and loss",
    "data": "images to batches",
    "backbones": "the seam",
    "latents": "codec and its store",
    "texts": "captions, encoded once",
    "patching": "the paper",
    "analysis": "what a patch does",
    "sampling": "numbered images",
    "training": "one loop for all",
    "evaluation": "scores",
    "pipeline": "options to network",
    "jobs": "commands at once",
    "improvement": "against own samples",
    "ablation": "arms in one table",
    "tuning": "an honest search",
    "demo": "the whole story",
    "commands": "the doors",
    "api": "the doors of Python",
    "cli": "dmp",
}


class Import(NamedTuple):
    """One imported name of the package: ``module`` asks ``target`` for ``name``; all three dotted, without the root."""

    module: str
    target: str
    name: str


def find_modules(package: Path) -> dict[str, Path]:
    """Every module by its dotted name below the package, which itself is the empty name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_for_types(node: ast.AST) -> bool:
    """Whether ``node`` is an ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(tree: ast.AST, *, top_only: bool = False) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements; ``top_only`` leaves out those inside functions and those for the type checker."""
    for node in ast.iter_child_nodes(tree):
        if top_only and (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_types(node)):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        yield from statements(node, top_only=top_only)


def own_imports(module: str, path: Path, known: Mapping[str, Path]) -> list[Import]:
    """What a module imports from its own package, by relative imports; an imported module is its own target."""
    home = module.split(".") if path.name == "__init__.py" and module else module.split(".")[:-1]
    found = []
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*home[: len(home) - node.level + 1], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                found.append(Import(module, inner if inner in known else ".".join(base), alias.name))
    return found


def foreign_imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Dotted names of what a module imports from other packages."""
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), top_only=top_only):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def wing_of(module: str) -> str:
    """The wing a module lies in: the first part of its name."""
    return module.split(".")[0]


def arrows(package: Path) -> set[tuple[str, str]]:
    """(wing, wing it imports from), each once; the package's own face counts for nothing."""
    known = find_modules(package)
    found = {
        (wing_of(module), wing_of(item.target))
        for module, path in known.items()
        for item in own_imports(module, path, known)
    }
    return {(one, other) for one, other in found if one != other and one and other}


def floors(wings: set[str], found: set[tuple[str, str]]) -> dict[str, int]:
    """The floor of each wing: one above the highest that it imports from; 0 for one that imports from none."""
    height = dict.fromkeys(wings, 0)
    for _ in wings:
        for one, other in found:
            height[one] = max(height[one], height[other] + 1)
    return height


def measure(package: Path) -> dict[str, object]:
    """The building in numbers. A package without wings has no order, so that none of its arrows points up or down."""
    known, found = find_modules(package), arrows(package)
    wings = {wing_of(module) for module in known} - {""}
    order = {wing: place for place, wing in enumerate(WINGS)}
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in known.values()}
    biggest = max(lines, key=lambda path: lines[path])
    length, where, name = max(
        (node.end_lineno - node.lineno + 1, str(path.relative_to(package)), node.name)
        for path in known.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None
    )
    inner = {(item.module, item.target) for m, p in known.items() for item in own_imports(m, p, known)}
    return {
        "entries of the package's folder": len({path.relative_to(package).parts[0] for path in known.values()}),
        "modules": len(known),
        "lines": sum(lines.values()),
        "wings and modules beside them": len(wings),
        "arrows between wings": len(found),
        "arrows pointing up": sum(order[one] < order[other] for one, other in found if {one, other} <= order.keys())
        if wings <= order.keys()
        else "-",
        "floors": max(floors(wings, found).values()) + 1 if wings <= order.keys() else "-",
        "arrows between modules": len({(one, other) for one, other in inner if one and other and one != other}),
        "biggest file": f"{lines[biggest]} lines, {biggest.relative_to(package)}",
        "longest function": f"{length} lines, {name} in {where}",
    }


# --- the picture --------------------------------------------------------------------------------------------------

BOX, GAP, FLOOR, MARGIN = (132, 42), 18, 82, 24  # of one wing, between two, from floor to floor, around all
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1b1b1b; text-anchor: middle } .why { font-size: 10.5px; fill: #555 }
  .wing { fill: #eef4fb; stroke: #3b6ea5 } .beside { fill: #f6f6f6; stroke: #8a8a8a }
  .arrow { fill: none; stroke: #3b6ea5; stroke-opacity: .28; stroke-width: 1.2 }
"""


def thinned(found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows without those that a longer way through other wings implies, so that the picture can be read."""
    below: dict[str, set[str]] = {}
    for one, other in found:
        below.setdefault(one, set()).add(other)

    def reach(wing: str) -> set[str]:
        return {deeper for next_ in below.get(wing, ()) for deeper in {next_} | reach(next_)}

    return {(one, other) for one, other in found if not any(other in reach(m) for m in below[one] - {other})}


def draw(package: Path) -> str:
    """The wings as boxes on their floors, the ground at the bottom, and who imports from whom, as SVG."""
    found = {(one, other) for one, other in arrows(package) if "__main__" not in (one, other)}
    wings = [wing for wing in WINGS if wing != "__main__"]
    height = floors(set(wings), found)
    rows = [[wing for wing in wings if height[wing] == floor] for floor in range(max(height.values()) + 1)]
    width = max(map(len, rows)) * (BOX[0] + GAP) - GAP + 2 * MARGIN
    total = (len(rows) - 1) * FLOOR + BOX[1] + 2 * MARGIN
    place: dict[str, tuple[float, float]] = {}
    for floor, row in enumerate(rows):
        left = (width - len(row) * (BOX[0] + GAP) + GAP) / 2
        for index, wing in enumerate(row):
            place[wing] = (left + index * (BOX[0] + GAP), total - MARGIN - BOX[1] - floor * FLOOR)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {total:g}" role="img">']
    lines += ["<title>The wings of dmp_cli; each imports only from those it has a line down to</title>"]
    lines += [f"<style>{STYLE}</style>", f'<rect width="{width:g}" height="{total:g}" fill="white"/>']
    for one, other in sorted(thinned(found)):
        (x1, y1), (x2, y2) = place[one], place[other]
        x1, y1, x2 = x1 + BOX[0] / 2, y1 + BOX[1], x2 + BOX[0] / 2
        bend = FLOOR / 2
        lines.append(
            f'<path class="arrow" d="M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"/>'
        )
    for wing, (x, y) in place.items():
        kind = "wing" if (package / wing).is_dir() else "beside"
        lines.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{BOX[0]}" height="{BOX[1]}" rx="5"/>')
        middle = x + BOX[0] / 2
        lines.append(f'<text x="{middle:g}" y="{y + 17:g}">{wing}{"/" * (kind == "wing")}</text>')
        lines.append(f'<text class="why" x="{middle:g}" y="{y + 33:g}">{PURPOSES[wing]}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> int:
    """Draw or check, and print the measures."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--check", action="store_true")
    asked.add_argument("--package", type=Path)
    given = asked.parse_args()
    if given.package is None:
        picture = draw(ROOT / "dmp_cli")
        if given.check and PICTURE.read_text(encoding="utf-8") != picture:
            print(f"{PICTURE.relative_to(ROOT)} is not current: run python docs/wings.py", file=sys.stderr)
            return 1
        PICTURE.write_text(picture, encoding="utf-8")
    for name, value in measure(given.package or ROOT / "dmp_cli").items():
        print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
