"""The pieces of an ablation: arms by name, commands in order, summaries by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.ablation.arms import Arm, arms_of
from dmp_cli.ablation.page import draw_pictures, draw_scores
from dmp_cli.ablation.plan import Plan, in_arguments
from dmp_cli.ablation.table import notes_of, summarise, table_of

PLAN = Plan(
    folder=Path("out"),
    arms=[Arm("dmp", "DMP"), Arm("slow", "slow", {"lr_schedule": "cosine", "ema": 0.9, "method": "lora"})],
    backbone=["--backbone", "b"],
    data=Path("d"),
    reference=Path("d"),
    steps=10,
    points=2,
    seeds=[3],
    num_images=7,
    training={"flip": False, "batch_size": 4},
    sampling=["--steps", "5"],
    scoring=[],
    everywhere=["--device", "cpu"],
)


def test_commands_in_order() -> None:
    commands = [" ".join(command) for command in PLAN.commands()]
    often = "--keep 1 --sample-every 0 --log-every 1 --save-every 5"
    how = "-n 7 --steps 5 --sampler ddpm --seed 3"
    assert commands == [
        f"sample --backbone b {how} -o out/samples/base-seed3 --device cpu",
        *(
            line
            for step in (5, 10)
            for line in (
                f"train --backbone b --data d -o out/runs/dmp-seed3 --resume --steps {step} --seed 3 {often} "
                "--no-flip --batch-size 4 --device cpu",
                f"sample --patch out/runs/dmp-seed3/patch.safetensors {how} -o out/samples/dmp-seed3-step{step} "
                "--device cpu",
            )
        ),
        f"train --backbone b --data d -o out/runs/slow-seed3 --resume --steps 10 --seed 3 {often} --no-flip "
        "--batch-size 4 --lr-schedule cosine --ema 0.9 --method lora --device cpu",
        f"sample --backbone b --adapter out/runs/slow-seed3/adapter-ema {how} -o out/samples/slow-seed3-step10 "
        "--device cpu",
        "eval --samples out/samples/base-seed3 --samples out/samples/dmp-seed3-step5 --samples "
        "out/samples/dmp-seed3-step10 --samples out/samples/slow-seed3-step10 --reference d --save-stats "
        "out/scores/reference.npz -o out/scores/seed3 --force --device cpu",
    ]


def test_the_reference_is_measured_once() -> None:
    many = replace(PLAN, seeds=[0, 1])
    scores = [command for command in many.commands() if command[0] == "eval"]
    assert [command[command.index("--reference") + 1] for command in scores] == ["d", "out/scores/reference.npz"]
    kid = replace(many, scoring=["--metrics", "fid,kid"])  # needs the features, which statistics do not keep
    scores = [command for command in kid.commands() if command[0] == "eval"]
    assert [command[command.index("--reference") + 1] for command in scores] == ["d", "d"]
    assert not any("--save-stats" in command for command in scores)


def test_table4_of_a_dit_b2() -> None:
    arms = {arm.name: dict(arm.options) for arm in arms_of("table4", num_blocks=12, num_prompts=256)}
    assert [arm["depth"] for name, arm in arms.items() if name.startswith("4e")] == [1, 6]  # 0 and 12 are there already
    assert len(arms) == 1 + 4 + 2 + 5
    on_maps = arms_of("table4", num_blocks=9, num_prompts=1024, tokens=False)
    assert not {"4a-attention", "4b-hard", "4d-prepend"} & {arm.name for arm in on_maps}


def test_controls_make_the_steps_alike() -> None:
    arms = {arm.name: arm for arm in arms_of("controls", num_blocks=12, num_prompts=256)}
    assert len(arms) == 12
    assert arms["scaled"].options["gate_scale"] == 256
    assert arms["prompt-tuning-slow"].options["lr"] == pytest.approx(1e-4 / 256)
    for name, arm in arms.items():
        assert arm.decays == arm.averages == name.endswith("-cosine")


def test_options_as_they_are_typed() -> None:
    typed = in_arguments({"flip": False, "gate_noise": True, "lora_targets": ["qkv", "proj"], "lr": 1e-4})
    assert typed == ["--no-flip", "--gate-noise", "--lora-targets", "qkv,proj", "--lr", "0.0001"]


def test_summaries_by_hand() -> None:
    three = summarise([1.0, 2.0, 6.0])
    assert (three.mean, three.std) == (3.0, pytest.approx(7**0.5))
    assert three.error == pytest.approx((7 / 3) ** 0.5)
    one = summarise([2.0])
    assert (one.mean, one.std, one.error) == (2.0, None, None)


def test_precision_is_of_training_and_sampling_alone() -> None:
    for command in replace(PLAN, precision=["--dtype", "bf16"]).commands():
        assert ("--dtype" in command) == (command[0] != "eval")


def row(name: str, *values: float) -> dict[str, Any]:
    def score(value: float) -> dict[str, Any]:
        plain = {"seeds": [value], "mean": value, "std": None, "error": None}
        unknown = {"interval": None, "interval_kind": None}
        return {"fid": {**plain, "difference": {**plain, "mean": value - 8, **unknown}}}

    curve = [{"step": step, "scores": score(value)} for step, value in enumerate(values, start=1)]
    found: dict[str, Any] = {
        "name": name,
        "title": name,
        "starts_as_base": True,
        "scores": score(values[-1]),
        "curve": curve,
    }
    if name == "base":
        del found["scores"]["fid"]["difference"], found["curve"]
    return found


def report(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"arms": list(rows), "seeds": [0], "steps": 2, "num_images": 50, "features_width": 64}


def test_the_table_in_text_and_its_warnings() -> None:
    columns, rows = table_of(report(row("base", 8.0), row("a", 9.0, 7.5)))
    assert columns == ["arm", "FID", "Δ FID"]
    assert rows == [["base", "8", "–"], ["a", "7.5", "-0.5"]]
    notes = " ".join(notes_of(report(row("base", 8.0))))
    assert "50 images for 64 features: the covariance is singular" in notes
    assert "One seed: Δ is the difference from the base" in notes
    known = row("a", 7.5)
    known["scores"]["fid"]["difference"] |= {"interval": [-0.9, -0.1], "interval_kind": "images"}
    assert table_of(report(row("base", 8.0), known))[1][1][2] == "-0.500 (-0.900 to -0.100)"


def test_an_arm_that_changes_outputs_at_once_does_not_start_at_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [arm.name for arm in arms_of("table4", num_blocks=2, num_prompts=16) if not arm.starts_as_base] == [
        "4d-prepend"
    ]
    assert not Arm("a", "a", {"init": "random"}).starts_as_base
    drawn: dict[str, Any] = {}
    monkeypatch.setattr("dmp_cli.ablation.page.draw_curves", lambda series, **how: drawn.update(series) or b"")
    draw_scores(
        row("base", 8.0), [row("a", 9.0, 7.5), {**row("b", 9.0, 7.0), "starts_as_base": False}], "fid", title="FID"
    )
    assert drawn == {"a": ([0, 1, 2], [8.0, 9.0, 7.5]), "b": ([1, 2], [9.0, 7.0])}


def test_far_curves_get_a_diagram_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmp_cli.ablation.page.draw_side_by_side", lambda plan: b"")
    near, far = row("near", 8.0, 8.1), row("far", 30.0, 8.0)
    assert set(draw_pictures(PLAN, report(row("base", 8.0), near, far))) == {
        "curves.png", "curves-near.png", "side-by-side.png",
    }  # fmt: skip
    for arms in ([near], [far]):
        assert set(draw_pictures(PLAN, report(row("base", 8.0), *arms))) == {"curves.png", "side-by-side.png"}


@pytest.mark.parametrize(("method", "last"), [("lora", "adapter"), ("dmp", "patch"), ("full", "backbone")])
def test_an_arm_on_own_samples_says_whether_its_average_is_sampled_against(method: str, last: str) -> None:
    for options, ending in (({}, "-ema"), ({"ema": 0.99}, "-ema"), ({"ema": 0}, "")):
        arm = Arm("own", "own", {"own_samples": 20, "method": method, **options})
        train, *samples = (c for c in replace(PLAN, arms=[arm]).commands() if "--data" in c or "--against" in c)
        decay = train[train.index("--ema") + 1]
        assert (decay == "0") == (not ending)
        for command in samples:
            assert Path(command[command.index("--against") + 1]).stem == f"{last}{ending}"
