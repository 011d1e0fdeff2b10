"""The arms of the study on CIFAR-10 and their learning rates: ``python -m benchmarks.studies.rates DIR``.

Every method trains at three rates with a seed that is used for nothing else; the lowest held-out loss chooses. With
``--list`` these trainings are printed, one a line: the run's folder, then options of ``dmp train``. Without it, what
was chosen goes to ``rates.json``, and the arms with these rates to a TOML file for each group, for ``dmp ablate``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmp_cli.improvement import in_arguments

from .flat import held_out_losses
from .sizes import RANKS

_EXPERTS = 4
TITLES = {
    "full": "fine-tuning",
    "lora": "LoRA",
    "prompt-tuning": "prompt tuning",
    "dmp": "DMP",
    "experts": "gated LoRA experts",
}
RATES = {"full": (1e-6, 1e-5, 1e-4), **dict.fromkeys(("lora", "prompt-tuning", "dmp", "experts"), (1e-4, 1e-3, 1e-2))}
OWN_RATES = {"full": 1e-4, **dict.fromkeys(("lora", "prompt-tuning", "dmp", "experts"), 1e-3)}  # of dmp improve
GROUPS = ("real-constant", "real-cosine", "own-constant", "own-cosine")
_COSINE = {"lr-schedule": "cosine", "ema": 0.995}
_GATE = 10.0  # the gate's rate over the prompts', as in the paper's recipe: 1e-3 and 1e-4


def options_of(method: str, rate: float, *, size: str) -> dict[str, Any]:
    """The options of ``dmp train`` of one method at one rate."""
    own: dict[str, dict[str, Any]] = {
        "full": {"method": "full"},
        "lora": {"method": "lora", "lora-rank": RANKS[size]},
        "prompt-tuning": {"method": "prompt-tuning"},
        "dmp": {"gate-lr": _GATE * rate},
        "experts": {
            "experts": "lora",
            "num-experts": _EXPERTS,
            "expert-rank": RANKS[size] // _EXPERTS,
            "gate-lr": _GATE * rate,
        },
    }
    return {**own[method], "lr": rate}


def trainings(folder: Path, *, size: str) -> Iterator[tuple[str, float, Path, dict[str, Any]]]:
    """Every training that helps to choose: its method, rate, run folder and options."""
    for method, rates in RATES.items():
        for rate in rates:
            yield method, rate, folder / "rates" / f"{method}-{rate:g}", options_of(method, rate, size=size)


def choose(folder: Path, *, size: str, steps: int) -> dict[str, dict[str, float]]:
    """The held-out loss after ``steps`` steps by method and rate, and of the base as the method ``base``."""
    found: dict[str, dict[str, float]] = {}
    for method, rate, run, _ in trainings(folder, size=size):
        losses = held_out_losses(run / "log.jsonl")
        found.setdefault(method, {})[f"{rate:g}"] = losses[steps]
        found["base"] = {"0": losses[0]}
    return found


def best_rate(losses: dict[str, float]) -> float:
    """The rate with the lowest loss."""
    return float(min(losses, key=lambda rate: losses[rate]))


def arms_of(group: str, rates: dict[str, float], *, size: str, own: int) -> str:
    """The TOML of one group of arms."""
    data, schedule = group.split("-")
    lines: list[str] = []
    for method, title in TITLES.items():
        rate = rates[method] if data == "real" else OWN_RATES[method]
        options = options_of(method, rate, size=size)
        if data == "own":
            options |= {"own-samples": own, "ema": 0}
        options |= _COSINE if schedule == "cosine" else {}
        lines += ["[[arm]]", f'name = "{method}"', f'title = "{title}"']
        lines += [f"{name} = {json.dumps(value)}" for name, value in options.items()]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Print the trainings, or read what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=RANKS, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--own", type=int, default=5000)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    if given.list:
        for _, _, run, options in trainings(given.folder, size=given.size):
            print(run, *in_arguments({name.replace("-", "_"): value for name, value in options.items()}))
        return
    losses = choose(given.folder, size=given.size, steps=given.steps)
    rates = {method: best_rate(losses[method]) for method in RATES}
    (given.folder / "rates.json").write_text(json.dumps({"losses": losses, "chosen": rates}, indent=1))
    for group in GROUPS:
        (given.folder / f"{group}.toml").write_text(arms_of(group, rates, size=given.size, own=given.own))


if __name__ == "__main__":
    main()
