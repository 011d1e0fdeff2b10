"""The results of the study on CIFAR-10, one JSON file a seed, and their table.

``python -m benchmarks.studies.cifar10_table RUNS --collect DIR --size cpu|gpu`` gathers what the ablations wrote;
``python -m benchmarks.studies.cifar10_table DIR`` prints the table of what was gathered. docs/study.md holds it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from dmp_cli.ablation import interval_of_seeds

from .flat import fall_of, held_out_losses
from .rates import GROUPS, TITLES

_HEADINGS = {
    "real-constant": "real pictures, constant rate",
    "real-cosine": "real pictures, cosine + EMA",
    "own-constant": "own samples, constant rate",
    "own-cosine": "own samples, cosine + EMA",
}


def collect(runs: Path, folder: Path, *, base: Path, size: str) -> None:
    """Gather the scores of every seed's ablations into ``folder/seedK.json``, what they share into ``shared.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = sorted({int(path.parent.name.rsplit("-", 1)[1]) for path in runs.glob("*-constant-*/report.json")})
    for seed in seeds:
        found: dict[str, Any] = {}
        for group in GROUPS:
            report = json.loads((runs / f"{group}-{seed}" / "report.json").read_text())
            bare, *arms = report["arms"]
            found["base"] = bare["scores"]["fid"]["mean"]
            found[group] = {arm["name"]: _scores_of(arm) for arm in arms}
        (folder / f"seed{seed}.json").write_text(json.dumps(found, indent=1) + "\n")
    losses = held_out_losses(base / "log.jsonl")
    floor = json.loads((runs / "floor" / "report.json").read_text())
    shared = {
        "size": size,
        "base_steps": max(losses),
        "base_fall": fall_of(losses, steps=max(losses)),
        "base_losses": losses,
        "floor": floor["rows"][0]["scores"]["fid"]["value"],
        "features": {key: floor[key] for key in ("features", "features_digest", "features_width", "versions")},
        "rates": json.loads((runs / "rates.json").read_text()),
        **{key: report[key] for key in ("steps", "num_images", "training")},
    }
    (folder / "shared.json").write_text(json.dumps(shared, indent=1) + "\n")


def _scores_of(arm: dict[str, Any]) -> dict[str, Any]:
    """What one seed's ablation says of an arm."""
    score = arm["scores"]["fid"]
    found = {"distance": score["mean"], "difference": score["difference"]["mean"]}
    found["interval"] = score["difference"]["interval"]
    return found | ({"scale": arm["scales"][0]} if "scales" in arm else {})


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What was gathered: what all seeds share, and each seed."""
    seeds = [json.loads(path.read_text()) for path in sorted(folder.glob("seed*.json"))]
    return json.loads((folder / "shared.json").read_text()), seeds


def render(folder: Path) -> str:
    """The table in Markdown: each arm's mean distance, and its difference from the base with its interval."""
    shared, seeds = read(folder)
    name = f"FD-{Path(shared['features']['features']).stem}"
    base = statistics.fmean(seed["base"] for seed in seeds)
    lines = [f"| arm | W | {name} | difference from the base (95 % interval) |", "|---|---|---|---|"]
    lines.append(f"| {shared['num_images']:,} real training pictures | | {_number(shared['floor'])} | |")
    lines.append(f"| base | | {_number(base)} | |")
    for group in GROUPS:
        lines.append(f"| **{_HEADINGS[group]}** | | | |")
        for method, title in TITLES.items():
            lines.append(_row(title, [seed[group][method] for seed in seeds]))
    return "\n".join(lines)


def _row(title: str, seeds: list[dict[str, Any]]) -> str:
    differences = [seed["difference"] for seed in seeds]
    covered = interval_of_seeds(differences, [seed["interval"] and tuple(seed["interval"]) for seed in seeds])
    assert covered is not None
    digits = max(0, min(3, 2 - math.floor(math.log10(max(covered.high - covered.low, 1e-9)))))
    told = f"{statistics.fmean(differences):+.{digits}f} ({covered.low:+.{digits}f} to {covered.high:+.{digits}f})"
    scales = ", ".join(f"{seed['scale']:g}" for seed in seeds) if "scale" in seeds[0] else ""
    mark = "**" if covered.high < 0 else ""
    return (
        f"| {title} | {scales} | {_number(statistics.fmean(seed['distance'] for seed in seeds))} | {mark}{told}{mark} |"
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.1f}"


def main() -> None:
    """Gather, or print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--collect", type=Path, default=None)
    parser.add_argument("--base", type=Path, default=None, help="the run of the base")
    parser.add_argument("--size", choices=("cpu", "gpu"), default="cpu")
    given = parser.parse_args()
    if given.collect is not None:
        collect(given.folder, given.collect, base=given.base, size=given.size)
    print(render(given.collect or given.folder))


if __name__ == "__main__":
    main()
