"""The tables of docs/memory.md: what ``dmp patch --memory`` counts for public sizes.

python docs/memory.py             write the tables into docs/memory.md anew (an hour)
python docs/memory.py NAME ...    only those of these sizes (minutes each)
python docs/memory.py --check     fail where the table of the smallest is not current
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "memory.md"
SMALLEST = "dit-s2"
NAMES = (
    *(SMALLEST, "dit-l2", "dit-xl2", "sd-v1.5", "sdxl", "pixart-sigma", "sd3-medium", "sd3.5-medium", "sd3.5-large"),
    *("flux-schnell", "flux-dev", "sana-600m", "sana-1600m", "lumina2", "auraflow", "z-image-turbo", "cogview4"),
    *("hunyuan-dit-1.1", "hunyuan-dit-1.2", "qwen-image"),
)
COLUMNS = ("frozen_weights", "training", "training_recomputed", "sampling")
HEAD = "| precision | images | frozen weights | training | with `--gradient-checkpointing` | sampling |"
BATCHES = os.environ.get("BATCHES", "1,4")  # the command counts for any; each takes minutes of the largest
MORE = {"dit-l2": "1,4,128"}  # the batch that was measured on a GPU
GIB = 1 << 30


def count(name: str) -> dict[str, Any]:
    """The command's own result."""
    words = ("patch", "--backbone", name, "--memory", "--batches", MORE.get(name, BATCHES), "--json", "--quiet")
    found = subprocess.run(
        (sys.executable, "-m", "dmp_cli", *words), cwd=ROOT, capture_output=True, text=True, check=True
    )
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def section(name: str, result: dict[str, Any]) -> str:
    """One table in Markdown, with its heading."""
    channels, height, width = result["sample_shape"]
    patch = f"a patch of {result['patch_parameters']:,} parameters, +{result['per_cent']:.2f} %"
    about = f"{result['weights']:,} parameters, samples of {channels} x {height} x {width}, {patch}."
    lines = [f"### {name}", "", about, "", HEAD, "|---|--:|--:|--:|--:|--:|"]
    for row in result["rows"]:
        sizes = " | ".join(f"{row[column] / GIB:.2f}" for column in COLUMNS)
        lines.append(f"| {row['precision']} | {row['images']} | {sizes} |")
    return "\n".join(lines) + "\n"


def marks(name: str) -> tuple[str, str]:
    """What stands before and after a table."""
    return f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"


def put(text: str, name: str, table: str) -> str:
    """``text`` with this table in the place of the one of its name, or behind all others."""
    begin, end = marks(name)
    if begin not in text:
        return f"{text.rstrip()}\n\n{begin}{table}{end}"
    before, rest = text.split(begin)
    return before + begin + table + end + rest.split(end)[1]


def main() -> int:
    """Write or check."""
    words = sys.argv[1:]
    if "--check" in words:
        text = PAGE.read_text(encoding="utf-8")
        if put(text, SMALLEST, section(SMALLEST, count(SMALLEST))) != text:
            print("the tables of memory are not current: run python docs/memory.py", file=sys.stderr)
            return 1
        return 0
    for name in words or NAMES:
        table = section(name, count(name))
        PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), name, table), encoding="utf-8")
        print(name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
