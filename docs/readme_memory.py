"""The README's table of memory: what docs/memory.md counts for some public sizes, and which card holds it.

python docs/readme_memory.py             write the table into README.md anew
python docs/readme_memory.py --check     fail where it is not current
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from in_page import renew

ROOT = Path(__file__).resolve().parent.parent
PAGE, COUNTED, MEASURED = ROOT / "README.md", ROOT / "docs" / "memory.md", ROOT / "benchmarks" / "RESULTS.md"
BEGIN, END = "<!-- memory -->\n", "<!-- end of memory -->\n"
NAMES = ("dit-xl2", "dit-l2", "sd-v1.5", "sdxl", "sd3-medium", "sd3.5-large", "flux-dev", "z-image-turbo", "qwen-image")
CARDS = (8, 12, 16, 24, 32, 48, 80)  # GiB, as sold
ASIDE = 1.5  # GiB of a card that CUDA, its libraries and the allocator's rounding take
HEAD = (
    "| model | patch | images | bf16 | and `--gradient-checkpointing` | and `--quantize nf4` | or `--offload-blocks` |"
)


def counted() -> dict[str, tuple[str, dict[tuple[str, int], tuple[float, float]]]]:
    """Of each name: the patch's share, and by precision and images the GiB of training, and those recomputed."""
    text = COUNTED.read_text(encoding="utf-8")
    found = {}
    for name in NAMES:
        part = text.split(f"<!-- {name} -->\n")[1].split(f"<!-- end of {name} -->")[0]
        share = re.search(r"parameters, (\+[\d.]+) %", part)
        assert share is not None, name
        rows = {}
        for row in re.findall(r"^\| (\w+) \| (\d+) \| [\d.]+ \| ([\d.]+) \| ([\d.]+) \|", part, re.MULTILINE):
            rows[row[0], int(row[1])] = float(row[2]), float(row[3])
        found[name] = f"{share[1]} %", rows
    return found


def with_card(gib: float) -> str:
    """The number, and the smallest card that holds it."""
    card = next((f"{card}" for card in CARDS if gib + ASIDE <= card), f"> {CARDS[-1]}")
    return f"{gib:.1f} ({card})"


def table() -> str:
    """All rows in Markdown, and the sentence about what was measured."""
    lines = [HEAD, "|---|--:|--:|--:|--:|--:|--:|"]
    for name, (share, rows) in counted().items():
        for images in sorted({images for _, images in rows}):
            plain, again = rows["bf16", images]
            few, away = rows["nf4", images][1], rows["offloaded", images][1]
            numbers = " | ".join(map(with_card, (plain, again, few, away)))
            lines.append(f"| `{name}` | {share} | {images} | {numbers} |")
    return "\n".join(lines) + f"\n\n{measured()}\n"


def measured() -> str:
    """The one training step whose time was measured on a GPU."""
    text = MEASURED.read_text(encoding="utf-8").split("## Training, GPU: ")[1].split("\n## ")[0]
    machine = re.search(r"(.*), torch ", text)
    step = re.search(r"a step takes ([\d.]+) ms", text)
    held = re.search(r"activation memory, DMP .*\((\d+) of", text)
    assert machine is not None
    assert step is not None
    assert held is not None
    return (
        f"Measured so far: `dit-l2` with 128 images in bf16 takes {step[1]} ms a step on one {machine[1]}, and "
        f"{int(held[1]) / 1024:.1f} GiB for\nactivations ([benchmarks/RESULTS.md](benchmarks/RESULTS.md))."
    )


def main() -> int:
    """Write or check."""
    return renew(PAGE, (BEGIN, END), table())


if __name__ == "__main__":
    sys.exit(main())
