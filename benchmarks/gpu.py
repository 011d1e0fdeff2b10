"""A GPU measured in one command: ``python -m benchmarks gpu --minutes 25 [-o FOLDER] [--dry]``.

Every row is written as soon as it is measured, and the same command goes on behind the last one, so that calls of ten
minutes each do. With ``--pictures cifar10.zip`` the study of docs/study.md has the minutes that the rows leave, and the
next call goes on with it. ``--dry`` runs all of this code on the CPU with tiny sizes; its numbers say nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch

from .gpu_rows import Place, encoding_rate, parity, reductions, sampling_step, text_rate, training_step
from .gpu_shaped import KINDS, METHODS as SHAPED_METHODS, shaped_sampling, shaped_step
from .gpu_study import SCRIPT, STAND_IN, STUDY, Study, go_on

Row = tuple[str, Callable[[], str]]  # its name, and what measures it

MODELS, BATCHES = ("dit-b2", "dit-l2", "dit-xl2"), (32, 128, 256)
METHODS = ("dmp", "lora", "full", "bare forward")
ROOT = Path(__file__).resolve().parent.parent
_LEFT = 60  # seconds that must be left for another row to begin


@dataclass(frozen=True)
class Records:
    """The rows that are there, in a file of one line each."""

    path: Path
    machine: str

    def known(self) -> dict[str, str]:
        """What was measured on this machine: the result of each row."""
        if not self.path.exists():
            return {}
        lines = [json.loads(line) for line in self.path.read_text().splitlines() if line.endswith("}")]
        return {line["row"]: line["result"] for line in lines if line["machine"] == self.machine}

    def add(self, row: str, result: str) -> None:
        """Keep a row; a line that was cut by a kill stays alone on its line."""
        text = json.dumps({"machine": self.machine, "row": row, "result": result})
        whole = not self.path.exists() or self.path.read_bytes().endswith(b"\n")
        with self.path.open("a") as file:
            file.write(("" if whole else "\n") + text + "\n")


def cuda_tests(*, dry: bool) -> str:
    """The tests that need a GPU, a real lack of memory among them; ``dry``: without one they are skipped."""
    words = ["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/commands/test_on_a_gpu.py"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if " passed" in line or " skipped" in line or " failed" in line]
    if done.returncode and not dry:
        return f"FAILED: {told[-1] if told else done.stderr[-200:]}"
    return told[-1].strip("= ") if told else "nothing ran"


def rows(place: Place) -> Iterator[Row]:
    """All rows, the most wanted first."""
    yield "tests on a GPU", partial(cuda_tests, dry=place.dry)
    yield "identity, and float32 against float64 of a CPU", partial(parity, place)
    models, batches, first = (("dit-s2",), (2,), ("dit-s2", 2)) if place.dry else (MODELS, BATCHES, ("dit-l2", 128))
    for model, batch in dict.fromkeys([first, *((model, batch) for model in models for batch in batches)]):
        for method in METHODS:
            yield f"{model}, {batch} images, {method}", partial(training_step, place, model, batch, method)
        yield (
            f"{model}, {batch} images, dmp, compiled",
            partial(training_step, place, model, batch, "dmp", compile=True),
        )
        yield f"{model}, {batch} images, sampling, patched / bare", partial(sampling_step, place, model, batch)
    for kind, batch in product(KINDS, batches[:2]):
        what = f"{kind}, {batch} images"
        for method in SHAPED_METHODS:
            yield f"{what}, {method}", partial(shaped_step, place, kind, batch, method)
        yield f"{what}, dmp, compiled", partial(shaped_step, place, kind, batch, "dmp", compile=True)
        yield f"{what}, sampling, patched / bare", partial(shaped_sampling, place, kind, batch)
    yield "encoding 256 px images with a VAE of SD's size", partial(encoding_rate, place)
    yield "encoding captions with a text encoder of CLIP-L's size", partial(text_rate, place)
    yield "NCCL and FSDP2 with one process", partial(reductions, place)


def measured(row: Callable[[], str]) -> str:
    """The result of a row; a lack of memory is one."""
    try:
        return row()
    except torch.OutOfMemoryError:
        return "out of memory"
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def main(arguments: list[str]) -> int:
    """Measure until the time is over; the exit code is 1 where a row has failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu"))
    parser.add_argument("--pictures", type=Path, metavar="ZIP", help="CIFAR-10, for the study of docs/study.md")
    parser.add_argument("--dry", action="store_true", help="all of this code on the CPU, with tiny sizes")
    given = parser.parse_args(arguments)
    if not given.dry and not torch.cuda.is_available():
        print("no GPU is here; --dry runs the same code on the CPU", file=sys.stderr)
        return 1
    end = time.monotonic() + 60 * given.minutes
    place = Place(torch.device("cpu" if given.dry else "cuda"), given.dry)
    given.output.mkdir(parents=True, exist_ok=True)
    records = Records(given.output / "rows.jsonl", f"{place.name}, torch {torch.__version__}")
    known, left = records.known(), 0
    for name, measure in rows(place):
        if name in known:
            continue
        if time.monotonic() + (0 if given.dry else _LEFT) > end:
            left += 1
            continue
        known[name] = measured(measure)
        records.add(name, known[name])
        print(f"| {name} | {known[name]} |", flush=True)
    write_table(given.output / "table.md", records.machine, known)
    print(f"{len(known)} rows, {left} left: call it again to go on" if left else f"{len(known)} rows, all there")
    failed = any(result.startswith("FAILED") for result in known.values())
    if left or (study := study_of(given.pictures, given.output / STUDY, dry=given.dry)) is None:
        return int(failed)
    told = go_on(study, left=lambda: end - time.monotonic() - (0 if given.dry else _LEFT))
    print(f"study: {told}")
    return int(failed or told.startswith("FAILED"))


def study_of(pictures: Path | None, folder: Path, *, dry: bool) -> Study | None:
    """The study that follows the rows; ``dry``: one of its shape. None: its pictures were not given."""
    if dry:
        return Study(STAND_IN, Path("none"), folder, "cpu")
    return None if pictures is None else Study(SCRIPT, pictures, folder, "gpu")


def write_table(path: Path, machine: str, known: dict[str, str]) -> None:
    """The rows as Markdown, if the file can be written."""
    table = [f"| {name} | {result} |" for name, result in known.items()]
    with contextlib.suppress(OSError):
        path.write_text("\n".join([machine, "", "| what | result |", "|---|---|", *table]) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
