"""The studies: their parts by hand, and their tables rebuilt from the committed results."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.studies.cifar10_table import collect, read, render
from benchmarks.studies.flat import fall_of, held_out_losses
from benchmarks.studies.pictures import sort_out
from benchmarks.studies.rates import GROUPS, RATES, TITLES, arms_of, best_rate, choose, trainings
from dmp_cli.ablation import OWN, read_arms
from dmp_cli.config import PatchConfig, TrainConfig, build

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "studies" / "results"


def names(part: str, count: int) -> list[str]:
    return [f"{part}/{label}/{number:05d}.jpg" for label in "abcdefghij" for number in range(count)]


def test_pictures_are_sorted_without_overlap() -> None:
    parts = sort_out([*names("train", 5000), *names("test", 1000), "README.md", "train/"], floor=2000)
    assert {part: len(members) for part, members in parts.items()} == {
        **{"train": 49_000, "held-out": 1000},
        **{"floor": 2000, "test": 10_000},
    }
    assert not set(parts["train"]) & set(parts["held-out"])
    assert set(parts["floor"]) < set(parts["train"])
    with pytest.raises(SystemExit, match="does not hold"):
        sort_out(names("train", 4999), floor=2000)


def test_a_base_is_flat_when_its_loss_hardly_falls(tmp_path: Path) -> None:
    losses = {0: 9.0, 400: 2.0, 790: 1.1, 800: 1.0, 820: 0.9, 980: 0.995, 1000: 0.985}
    assert fall_of(losses, steps=1000) == pytest.approx(1 - 0.99 / 1.0)
    assert fall_of(losses, steps=2000) is None
    assert fall_of({}, steps=10) is None
    lines = [{"step": step, "held_out": {"loss": loss}} for step, loss in losses.items()]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(json.dumps(line) for line in [*lines, {"step": 1000, "loss": 3.0}]))
    assert held_out_losses(log) == losses


def test_the_lowest_held_out_loss_chooses_a_rate(tmp_path: Path) -> None:
    for method, rate, run, _ in trainings(tmp_path, size="cpu"):
        run.mkdir(parents=True)
        end = abs(rate - RATES[method][1]) + 1
        lines = [{"step": step, "held_out": {"loss": loss}} for step, loss in ((0, 5.0), (7, end))]
        (run / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = choose(tmp_path, size="cpu", steps=7)
    assert found.pop("base") == {"0": 5.0}
    assert {method: best_rate(losses) for method, losses in found.items()} == {
        method: rates[1] for method, rates in RATES.items()
    }


@pytest.mark.parametrize("size", ["cpu", "gpu"])
@pytest.mark.parametrize("group", GROUPS)
def test_arms_are_those_that_ablate_reads(group: str, size: str, tmp_path: Path) -> None:
    path = tmp_path / "arms.toml"
    path.write_text(arms_of(group, {method: rates[0] for method, rates in RATES.items()}, size=size, own=50))
    known = TrainConfig.model_fields.keys() | PatchConfig.model_fields.keys() | {OWN}
    arms = read_arms(path, known=known, reserved={"data", "steps", "seed"})
    assert [arm.name for arm in arms] == list(TITLES)
    for arm in arms:
        assert arm.own_samples == (50 if group.startswith("own") else None)
        assert bool(arm.averages) == arm.decays == group.endswith("cosine")
        options = {key: value for key, value in arm.options.items() if key != OWN}
        of_patch = {key: value for key, value in options.items() if key in PatchConfig.model_fields}
        build(PatchConfig, **of_patch)
        build(TrainConfig, data=Path("d"), **{k: v for k, v in options.items() if k not in of_patch})


def test_the_table_says_mean_and_interval(tmp_path: Path) -> None:
    def seed(place: int) -> dict[str, Any]:
        arm = {"distance": 9.0 + place, "difference": -1.0 - place, "interval": [-1.1 - place, -0.9 - place]}
        arms = dict.fromkeys(TITLES, arm)
        own = {method: {**arm, "scale": 0.5} for method in TITLES}
        return {"base": 10.0, **{group: own if group.startswith("own") else arms for group in GROUPS}}

    for place in range(3):
        (tmp_path / f"seed{place}.json").write_text(json.dumps(seed(place)))
    shared = {"features": {"features": "net.pt"}, "floor": 1.5, "num_images": 2000}
    (tmp_path / "shared.json").write_text(json.dumps(shared))
    lines = render(tmp_path).splitlines()
    assert lines[0] == "| arm | W | FD-net | difference from the base (95 % interval) |"
    assert lines[2:4] == ["| 2,000 real training pictures | | 1.5 | |", "| base | | 10 | |"]
    # the mean of -1, -2, -3 and t at 97.5 % with 2 degrees of freedom, 4.303, times 1 / sqrt(3)
    assert lines[5] == "| fine-tuning |  | 10 | -2.00 (-4.48 to +0.48) |"
    assert lines[-1] == "| gated LoRA experts | 0.5, 0.5, 0.5 | 10 | -2.00 (-4.48 to +0.48) |"


def test_reports_are_gathered(tmp_path: Path) -> None:
    def arm(name: str, mean: float, **more: Any) -> dict[str, Any]:
        difference = {"mean": mean - 10, "interval": [mean - 11, mean - 9]}
        return {"name": name, "scores": {"fid": {"mean": mean, "difference": difference}}, **more}

    for group in GROUPS:
        scales = {"scales": [0.5]} if group.startswith("own") else {}
        arms = [arm("base", 10.0), *(arm(method, 9.0, **scales) for method in TITLES)]
        report = {"arms": arms, "steps": 300, "num_images": 1000, "training": {"batch_size": 128}}
        for seed in range(2):
            (tmp_path / f"{group}-{seed}").mkdir()
            (tmp_path / f"{group}-{seed}" / "report.json").write_text(json.dumps(report))
    of_features = {"features": "net.pt", "features_digest": "d", "features_width": 4, "versions": {}}
    (tmp_path / "floor").mkdir()
    floor = {**of_features, "rows": [{"scores": {"fid": {"value": 1.5}}}]}
    (tmp_path / "floor" / "report.json").write_text(json.dumps(floor))
    (tmp_path / "rates.json").write_text("{}")
    lines = [{"step": step, "held_out": {"loss": loss}} for step, loss in ((0, 5.0), (8, 2.0), (10, 1.98))]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    collect(tmp_path, tmp_path / "results", base=tmp_path, size="cpu")
    shared, seeds = read(tmp_path / "results")
    assert (shared["base_steps"], shared["floor"], shared["num_images"], len(seeds)) == (10, 1.5, 1000, 2)
    assert shared["base_fall"] == fall_of({0: 5.0, 8: 2.0, 10: 1.98}, steps=10)
    assert seeds[1]["base"] == 10.0
    assert seeds[0]["own-cosine"]["lora"] == {
        "distance": 9.0,
        "difference": -1.0,
        "interval": [-2.0, 0.0],
        "scale": 0.5,
    }
    assert "| base | | 10 | |" in render(tmp_path / "results")


def test_the_scripts_are_scripts() -> None:
    for name in ("cifar10.sh", "stand_in.sh"):
        subprocess.run(["bash", "-n", ROOT / "benchmarks" / "studies" / name], check=True)


@pytest.mark.parametrize("results", sorted(RESULTS.glob("*/")), ids=lambda path: path.name)
def test_the_table_of_the_docs_is_that_of_the_results(results: Path) -> None:
    assert render(results) in (ROOT / "docs" / "study.md").read_text()
