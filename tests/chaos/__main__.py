"""Damages and forges inputs of every kind by the thousand, and opens each as the tool does.

python -m tests.chaos [KIND ...] [--all] [--count N] [--seed S] [--json FILE] [--only KIND:NUMBER]

A case is a function of its kind, the seed and its number. It passes when the tool refuses the input in its own error,
or when what comes out is right; it fails by a traceback, by wrong numbers, after 5 seconds or beyond 1 GB of memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy and torch are imported, below
os.environ["HF_HUB_OFFLINE"] = "1"

from .cases import judge
from .kinds import NAMES, kind_of
from .table import render, render_failures
from .workers import build, run_cases, temporary_root


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; 1 if any case failed."""
    asked = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="chaos-home-", dir=temporary_root()) as home:
        os.environ |= {"DMP_HOME": home, "XDG_CACHE_HOME": home, "NO_COLOR": "1", "COLUMNS": "120"}
        if asked.only:
            return _run_one(asked.only, asked.seed, Path(home))
        outcomes = []
        for name, count in _shares([*(NAMES if asked.all else asked.kinds)], asked.count):
            found = list(run_cases(name, range(count), seed=asked.seed))
            outcomes += found
            print(render(found), flush=True)
        if len({outcome.kind for outcome in outcomes}) > 1:
            print(render(outcomes))
        print(render_failures(outcomes, seed=asked.seed))
        if asked.json:
            asked.json.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1))
    return int(any(outcome.failed for outcome in outcomes))


def _shares(names: list[str], count: int) -> list[tuple[str, int]]:
    """How many of ``count`` cases are of each kind: as many of each, but of those that take minutes each only a few."""
    few = {name: min(most, count) for name in names if (most := kind_of(name).most) is not None}
    others = [name for name in names if name not in few]
    rest = max(0, count - sum(few.values())) if others else 0
    shares = {name: rest // len(others) + (place < rest % len(others)) for place, name in enumerate(others)}
    return [(name, (few | shares)[name]) for name in names]


def _run_one(only: str, seed: int, home: Path) -> int:
    """Run one case in this process, with its traceback."""
    name, _, number = only.rpartition(":")
    kind = build(name, home / "one")
    try:
        outcome = judge(kind, name, int(number), seed=seed, place=home / "case", reraise=True)
    except BaseException:
        traceback.print_exc()
        return 1
    print("\n".join(f"{key}: {value}" for key, value in dataclasses.asdict(outcome).items()))
    return int(outcome.failed)


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    head = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=head)
    parser.add_argument("kinds", nargs="*", choices=[[], *NAMES], metavar="KIND", help=", ".join(NAMES))
    parser.add_argument("--all", action="store_true", help="every kind")
    parser.add_argument("--count", type=int, default=1000, help="cases in all, shared among the kinds")
    parser.add_argument("--seed", type=int, default=0, help="number that fixes the cases")
    parser.add_argument("--json", type=Path, help="write every outcome to this file")
    parser.add_argument("--only", metavar="KIND:NUMBER", help="run one case again, and show its traceback")
    return parser


if __name__ == "__main__":
    sys.exit(main())
