"""Whether a base has converged: ``python -m benchmarks.studies.flat RUN --steps N``; exit code 0 says yes.

A base is flat when its held-out loss falls by less than 0.5 % over the last fifth of its steps. Both ends are means of
the measurements within 2.5 % of the steps, as one measurement varies with the last few batches.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_FALL, _FIFTH, _NEAR = 0.005, 0.8, 0.025


def held_out_losses(log: Path) -> dict[int, float]:
    """The held-out loss of each step at which it was measured."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return {line["step"]: line["held_out"]["loss"] for line in lines if "held_out" in line}


def fall_of(losses: dict[int, float], *, steps: int) -> float | None:
    """How much the loss falls over the last fifth of ``steps``, as a share; None: the run is not that far."""
    if not losses or max(losses) < steps:
        return None
    ends = []
    for place in (_FIFTH, 1.0):
        near = [loss for step, loss in losses.items() if abs(step - place * steps) <= _NEAR * steps and step <= steps]
        if not near:
            return None
        ends.append(sum(near) / len(near))
    return 1 - ends[1] / ends[0]


def main() -> None:
    """Say how far the loss fell, and exit with 1 where it still falls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--fall", type=float, default=_FALL, help="another limit, for a rehearsal")
    given = parser.parse_args()
    fall = fall_of(held_out_losses(given.run / "log.jsonl"), steps=given.steps)
    if fall is None:
        raise SystemExit(1)
    print(f"after {given.steps:,} steps the held-out loss fell by {fall:.2%} over the last fifth", flush=True)
    raise SystemExit(0 if fall < given.fall else 1)


if __name__ == "__main__":
    main()
