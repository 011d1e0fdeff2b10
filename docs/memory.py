"""The tables of docs/memory.md: what ``dmp patch --memory`` counts for public sizes.

python docs/memory.py             write the tables into docs/memory.md anew (minutes)
python docs/memory.py --check     fail where the table of the smallest is not current
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "memory.md"
SMALLEST = "dit-s2"
NAMES = (SMALLEST, "dit-xl2", "sd-v1.5", "sdxl", "pixart-sigma", "sd3-medium")
COLUMNS = ("frozen_weights", "training", "training_recomputed", "sampling")
HEAD = "| precision | images | frozen weights | training | with `--gradient-checkpointing` | sampling |"
BATCHES = "1"  # the command counts for any; each takes minutes of the largest
GIB = 1 << 30


def count(name: str) -> dict[str, Any]:
    """The command's own result."""
    command = (
        sys.executable,
        "-m",
        "dmp_cli",
        "patch",
        "--backbone",
        name,
        "--memory",
        "--batches",
        BATCHES,
        "--json",
        "--quiet",
    )
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def section(name: str, result: dict[str, Any]) -> str:
    """One table in Markdown, with its heading."""
    channels, height, width = result["sample_shape"]
    lines = [f"### {name}", "", f"Samples of {channels} x {height} x {width}.", "", HEAD, "|---|--:|--:|--:|--:|--:|"]
    for row in result["rows"]:
        sizes = " | ".join(f"{row[column] / GIB:.2f}" for column in COLUMNS)
        lines.append(f"| {row['precision']} | {row['images']} | {sizes} |")
    return "\n".join(lines) + "\n"


def marks(name: str) -> tuple[str, str]:
    """What stands before and after a table."""
    return f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"


def main() -> int:
    """Write or check."""
    is_check = "--check" in sys.argv[1:]
    text = current = PAGE.read_text(encoding="utf-8")
    for name in (SMALLEST,) if is_check else NAMES:
        begin, end = marks(name)
        before, rest = current.split(begin)
        _, after = rest.split(end)
        current = before + begin + section(name, count(name)) + end + after
        if not is_check:
            PAGE.write_text(current, encoding="utf-8")
            print(name, flush=True)
    if is_check and current != text:
        print("the tables of memory are not current: run python docs/memory.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
