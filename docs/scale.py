"""The tables of docs/scale.md: what many GPUs would do for many images, computed from what was measured on one.

python docs/scale.py                     write the tables into docs/scale.md anew
python docs/scale.py --check             fail where they are not current
python docs/scale.py --show --between 50 --latency 5 --gpus 16,256     print them for assumptions of your own
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from in_page import renew

ROOT = Path(__file__).resolve().parent.parent
PAGE, RESULTS, MEMORY = (ROOT / path for path in ("docs/scale.md", "benchmarks/RESULTS.md", "docs/memory.md"))
GPUS = (1, 8, 64, 1024)
IN_A_MACHINE = 8
ASSUMED = {  # what no measurement of ours says; options of the same names
    "within": (200.0, "GB/s that a GPU sends to another one of its machine"),
    "between": (25.0, "GB/s that a GPU sends to one of another machine"),
    "latency": (10.0, "µs that a message takes beside its bytes"),
    "disk": (1.0, "GB/s that the first process writes to the disk"),
}


class Input(NamedTuple):
    """One number that goes into the formulas."""

    letter: str
    what: str
    value: float
    shown: str
    how: str  # measured, counted, by design, or assumed: where from


def found(page: str, pattern: str) -> float:
    """The number that ``pattern`` finds in the text of a page, exactly once."""
    numbers = re.findall(pattern, page)
    if len(numbers) != 1:
        raise SystemExit(f"scale.py reads what its pages have {len(numbers)} times, not once: {pattern}")
    return float(numbers[0].replace(",", ""))


def drawn(gpus: int) -> str:
    """Milliseconds of a step's random numbers, as measured of so many processes, or of the next larger number."""
    count = min((n for n in GPUS if n >= gpus), default=None)
    if count is None:
        return "not measured"
    pattern = rf"random numbers of a step, {count:,} processes of 128 images \| ([\d.]+) ms"
    return f"{'' if count == gpus else 'at most '}{found(RESULTS.read_text(encoding='utf-8'), pattern):.1f} ms"


def inputs(assumed: dict[str, float]) -> dict[str, Input]:
    """All inputs, by letter."""
    results, counted = (page.read_text(encoding="utf-8") for page in (RESULTS, MEMORY))
    on_gpu = results.split("## Training, GPU: ")[1]  # the first of such sections
    gpu = f"measured, {on_gpu.split(',')[0]}: [results](../benchmarks/RESULTS.md)"
    cpu = "measured, CPU: [results](../benchmarks/RESULTS.md)"
    on_gpu, dit = on_gpu.split("\n## ")[0], r"### dit-l2\s+[^#]*?"
    step = found(on_gpu, r"a step takes ([\d.]+) ms\)")
    live = found(on_gpu, r"DMP step with the latent store / encoding live \| ([\d.]+) [^|]*\| 0\.5 \|")
    patch = found(counted, dit + r"a patch of ([\d,]+) parameters")
    memory = found(counted, dit + r"\| bf16 \| 128 \| [\d.]+ \| ([\d.]+) \|")
    opening = found(results, r"Opening takes\s+[\d.]+ and ([\d.]+) s in two processes")
    listing = found(results, r"Listing takes (\d+) s, once")
    names = found(results, r"gives ([\d,]+) of\s+its settings")
    order = found(results, r"images in files of their own \| ([\d.]+) s")
    rows = [
        Input("t", "a step of DiT-L/2 in bf16, b images, whose latents are given", step, f"{step} ms", gpu),
        Input("b", "images of each GPU in a step", 128, "128", "as in t"),
        Input("r", "t over the same step that encodes its images itself", live, f"{live}", gpu),
        Input("P", "parameters of the patch", patch, f"{patch:,.0f}", "counted: [memory](memory.md)"),
        Input("M", "memory of such a step", memory, f"{memory} GiB", "counted: [memory](memory.md)"),
        Input("L, K", "blocks, and prompts of each", 24 * 256, "24, 256", "by design"),
        Input("h", "trained for the balance losses alone: 1024x256", 262_144, "262,144", "by design"),
        Input("F", "latents of an image in a store: it and its mirror image", 2, "2", "by design"),
        Input("R", "bytes of one: mean and deviation, 4x32x32 float32", 32_768, "32,768", "by design"),
        Input("k", "images in a file of the store, 64 MiB", 1024, "1,024", "by design"),
        Input("x", "numbers reduced beside gradients: loss terms, signals", 6, "6", "counted by a test"),
        Input("g", "most copies of all gate weights that the balance losses hold", 4.02, "4.02", "counted by a test"),
        Input("q", "most gate weights of which they are computed at once", 2**25, "2^25", "by design"),
        Input("s", "bytes of its settings that a process shows all others", names, f"{names:,.0f}", cpu),
        Input("l", "listing 10,000,000 members of shards, once, by two processes", listing, f"{listing:.0f} s", cpu),
        Input("i", "opening them by their index, each start and process", opening, f"{opening} s", cpu),
        Input("o", "order of an epoch of 10,000,000 images, in each process", order, f"{order} s", cpu),
        Input("c", "random numbers of a step in each process, on one core", 0.0, "in its row", cpu),
        Input("N", "images of 256x256 px to train on", 10_000_000, "10,000,000", "as asked"),
    ]
    letters = {"within": "w", "between": "v", "latency": "a", "disk": "d"}
    for name, (_, what) in ASSUMED.items():
        value = assumed[name]
        rows.append(Input(letters[name], what, value, f"{value:,.0f}" if value >= 10 else f"{value:g}", "**assumed**"))
    return {row.letter: row for row in rows}


class Cluster:
    """What n GPUs would do, by the formulas that the page shows beside them."""

    def __init__(self, gpus: int, given: dict[str, Input]) -> None:
        self.n = gpus
        self.of = {letter: row.value for letter, row in given.items()}

    def batch(self) -> float:
        return self.n * self.of["b"]

    def reduced(self) -> float:
        """Bytes."""
        return 4 * (self.of["P"] + self.of["x"])

    def reduction(self) -> float:
        """Seconds of a ring: each GPU sends its bytes almost twice, in 2 (n - 1) messages one after the other."""
        if self.n == 1:
            return 0.0
        speed = self.of["w" if self.n <= IN_A_MACHINE else "v"] * 1e9
        return 2 * (self.n - 1) * (self.reduced() / self.n / speed + self.of["a"] * 1e-6)

    def step(self) -> float:
        return self.of["t"] / 1000 + self.reduction()

    def images_per_second(self) -> float:
        return self.batch() / self.step()

    def steps(self) -> int:
        """Of an epoch."""
        return math.ceil(self.of["N"] / self.batch())

    def stored(self) -> float:
        """Bytes: the latents with a sum each, and of each image's file its size, time and sum."""
        return self.of["N"] * (self.of["F"] * (self.of["R"] + 8) + 3 * 8)

    def files(self) -> int:
        return math.ceil(self.of["N"] / self.of["k"])

    def filling(self) -> float:
        """Seconds: a file is made by one GPU."""
        encoding = self.of["t"] / 1000 * (1 / self.of["r"] - 1) / self.of["b"]
        return math.ceil(self.files() / self.n) * self.of["k"] * self.of["F"] * encoding

    def read(self) -> float:
        """Bytes a second."""
        return self.images_per_second() * self.of["R"]

    def balance(self) -> float:
        """Bytes."""
        return self.of["g"] * 4 * min(self.batch() * self.of["L, K"], self.of["q"])

    def checkpoint(self) -> float:
        """Bytes: what is trained and both moments of AdamW, and the average of the patch."""
        return 16 * self.of["P"] + 12 * self.of["h"]

    def sent(self) -> float:
        """Bytes, to all others together."""
        return self.checkpoint() * (self.n - 1)

    def shown(self) -> float:
        """Bytes."""
        return self.n * self.of["s"]


Row = tuple[str, str, Callable[[Cluster], str]]
ROWS: list[Row] = [
    ("images in a step, B", "n b", lambda c: f"{c.batch():,.0f}"),
    ("reduced by each GPU in a step", "4 (P + x)", lambda c: size(c.reduced()) if c.n > 1 else "-"),
    ("the reduction, as a ring", "2 (n - 1) (4 (P + x) / (n w or v) + a)", lambda c: f"{1000 * c.reduction():.1f} ms"),
    ("a step, T", "t + the reduction", lambda c: f"{1000 * c.step():.1f} ms"),
    ("share of the step that computes", "t / T", lambda c: f"{c.of['t'] / 1000 / c.step():.3f}"),
    ("images a second", "B / T", lambda c: f"{c.images_per_second():,.0f}"),
    ("steps of an epoch", "N / B, rounded up", lambda c: f"{c.steps():,}"),
    ("an epoch", "its steps times T", lambda c: duration(c.steps() * c.step())),
    ("latent store, once", "N (F (R + 8) + 24)", lambda c: size(c.stored())),
    ("its files", "N / k, rounded up", lambda c: f"{c.files():,}"),
    ("filling it, encoding alone", "(files / n, rounded up) k F t (1 / r - 1) / b", lambda c: duration(c.filling())),
    ("reading it while training, all GPUs", "B R / T", lambda c: f"{size(c.read())}/s"),
    ("listing, at the first start", "l, once", lambda c: duration(c.of["l"])),
    ("listing, at later starts", "i", lambda c: duration(c.of["i"])),
    ("order of the data, each epoch", "o", lambda c: duration(c.of["o"])),
    ("random numbers of a step, ahead of it", "c, measured for n", lambda c: drawn(c.n)),
    ("memory of each GPU for its images", "M", lambda c: f"{c.of['M']:.1f} GiB"),
    ("memory for the balance losses, each GPU", "4 g B L K, at most 4 g q", lambda c: size(c.balance())),
    ("settings compared at the start, each process", "n s", lambda c: size(c.shown()) if c.n > 1 else "-"),
    ("a checkpoint with `--ema`", "16 P + 12 h", lambda c: size(c.checkpoint())),
    ("writing it", "(16 P + 12 h) / d", lambda c: f"{c.checkpoint() / c.of['d'] / 1e9:.2f} s"),
    (
        "sent to all when a run goes on",
        "(16 P + 12 h) (n - 1)",
        lambda c: size(c.checkpoint() * (c.n - 1)) if c.n > 1 else "-",
    ),
]


def size(count: float) -> str:
    """Bytes in words."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:,.1f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def tables(given: dict[str, Input], gpus: tuple[int, ...]) -> tuple[str, str]:
    """The inputs, and what follows from them."""
    head = ["| letter | what | value | how it is known |", "|---|---|--:|---|"]
    first = [*head, *(f"| {row.letter} | {row.what} | {row.shown} | {row.how} |" for row in given.values())]
    clusters = [Cluster(count, given) for count in gpus]
    names = " | ".join(f"{count:,} GPU{'s' * (count > 1)}" for count in gpus)
    second = [f"| what | formula | {names} |", f"|---|---|{'--:|' * len(gpus)}"]
    for what, formula, value in ROWS:
        second.append(f"| {what} | {formula} | {' | '.join(map(value, clusters))} |")
    return "\n".join(first) + "\n", "\n".join(second) + "\n"


def main() -> int:
    """Write, check or show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--show", action="store_true", help="print the tables, and write nothing")
    parser.add_argument("--gpus", default=",".join(map(str, GPUS)), help="numbers of GPUs, with --show")
    for name, (value, what) in ASSUMED.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"{what}, with --show")
    asked = parser.parse_args()
    given = inputs({name: getattr(asked, name) for name in ASSUMED})
    made = tables(given, tuple(int(count) for count in asked.gpus.split(",")))
    if asked.show:
        print("\n".join(made))
        return 0
    if asked.gpus != parser.get_default("gpus") or any(getattr(asked, name) != ASSUMED[name][0] for name in ASSUMED):
        parser.error("the page has the assumptions that are written in scale.py; give --show to print others")
    marks = [(f"<!-- {name} -->\n", f"<!-- end of {name} -->\n") for name in ("inputs", "outcome")]
    return max(renew(PAGE, mark, table) for mark, table in zip(marks, made, strict=True))


if __name__ == "__main__":
    sys.exit(main())
