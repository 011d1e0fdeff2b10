"""The table of docs/families.md: generated from the tests of ``tests/families`` that ran and passed.

DMP_SHOWN=shown.jsonl python -m pytest -m "slow or not slow" tests/families     note what passes
python docs/families.py shown.jsonl             write the table anew from these notes
python docs/families.py --check shown.jsonl     fail where it is not current
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "families.md"
BEGIN, END = "<!-- families -->\n", "<!-- end -->\n"


def table(noted: Path) -> str:
    """The table in Markdown: a row for what a family can do, a column for each; every cell links to its tests."""
    sys.path.insert(0, str(ROOT))
    from tests.families.cases import CASES
    from tests.families.shown import COLUMNS

    shown: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for line in noted.read_text(encoding="utf-8").splitlines():
        name, column, cell, test = json.loads(line)
        shown.setdefault((column, name), set()).add((cell, test))
    names = [case.name for case in CASES]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for column in COLUMNS:
        cells = [_cell(shown.get((column, name), set())) for name in names]
        lines.append(f"| **{column}** | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(found: set[tuple[str, str]]) -> str:
    """Words, each with the test that backs it; ``untested`` where none does."""
    tests: dict[str, list[str]] = {}
    for words, test in sorted(found):
        tests.setdefault(words, []).append(test)
    told = []
    for words, named in tests.items():
        file, name = named[0].split("::")
        told += [f'[{words}](../{file} "{name}")'] if words else []
    return ", ".join(told) or "untested"


def main() -> int:
    """Write or check."""
    given = [word for word in sys.argv[1:] if word != "--check"]
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END, 1)
    made = table(Path(given[0]))
    current = f"{before}{BEGIN}\n{made}\n{END}{after}"
    untested = made.count("untested")
    if "--check" in sys.argv[1:]:
        if text != current:
            print("docs/families.md is not what the tests showed: see docs/families.py", file=sys.stderr)
        if untested:
            print(f"{untested} cells of docs/families.md are untested", file=sys.stderr)
        return int(text != current or untested > 0)
    PAGE.write_text(current, encoding="utf-8")
    print(f"{len(made.splitlines()) - 2} rows, {untested} cells untested")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
