"""dmp_cli.sampling.plan: which image is which, as a config says or as a file does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.config import PlanLine, Prompt, SampleConfig, ScheduleConfig
from dmp_cli.errors import ConfigError
from dmp_cli.latents.codec import PixelCodec
from dmp_cli.sampling.plan import Item, Plan, read_plan
from dmp_cli.sampling.sampler import resolve, sample
from tests.builders import tiny_dit


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_a_config_takes_classes_and_prompts_in_turn() -> None:
    plan = Plan(SampleConfig(seed=3, classes=(5, 7), guidance=2.0))
    assert [plan.item(index) for index in range(3)] == [
        Item(3, 0, 5, None, 2.0),
        Item(3, 1, 7, None, 2.0),
        Item(3, 2, 5, None, 2.0),
    ]
    prompts = (Prompt(text="fox", seed=9, guidance=4), Prompt(text="cat"))
    plan = Plan(SampleConfig(prompts=prompts))
    assert plan.item(4) == Item(9, 2, None, "fox", 4.0)
    assert plan.item(5) == Item(0, 5, None, "cat", 1.0)
    assert plan.digest is None


def test_a_file_says_it_line_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "p", {"class": 2}, {"class": 1, "seed": 7}, "", {"class": 0, "seed": 7, "guidance": 3})
    plan = Plan(SampleConfig(seed=5, guidance=1.5), read_plan(path))
    items = [plan.item(index) for index in range(3)]
    assert items == [Item(5, 0, 2, None, 1.5), Item(7, 0, 1, None, 1.5), Item(7, 1, 0, None, 3.0)]
    assert plan.item(3) == items[0]  # what fills up the last chunk
    other = write(tmp_path / "q", {"class": 2}, {"class": 1, "seed": 7}, {"class": 0, "seed": 8, "guidance": 3})
    assert plan.digest != Plan(plan.config, read_plan(other)).digest


@pytest.mark.parametrize(
    "config",
    [
        SampleConfig(seed=4, classes=(0, 3), num_images=5),
        SampleConfig(prompts=(Prompt(text="läng", seed=3), Prompt(text="b\u2028c", guidance=2)), num_images=5),
    ],
)
def test_a_written_plan_is_read_as_the_same(tmp_path: Path, config: SampleConfig) -> None:
    plan = Plan(config)
    (tmp_path / "plan.jsonl").write_text(plan.text(5), encoding="utf-8")
    again = Plan(SampleConfig(seed=99, num_images=5), read_plan(tmp_path / "plan.jsonl"))
    assert [again.item(index) for index in range(5)] == [plan.item(index) for index in range(5)]
    assert plan.text(5).startswith(plan.text(3))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not valid JSON"),
        ("[1]", "line 2 is not a JSON object"),
        ({"class": -1}, "line 2: class -1"),
        ({"colour": 1}, "line 2: colour 1: Extra inputs"),
        ({"seed": "x"}, "line 2: seed 'x'"),
        ({"guidance": -1}, "line 2: guidance -1"),
    ],
)
def test_lines_that_are_none(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_plan(write(tmp_path / "p", {"class": 1}, line))
    assert message in caught.value.message


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read --plan"):
        read_plan(tmp_path / "none")
    with pytest.raises(ConfigError, match="is empty"):
        read_plan(write(tmp_path / "p", ""))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"label": 4}], "line 1 of the plan: class 4; this backbone knows classes 0..3"),
        ([{"label": 1}, {}], "line 2 of the plan: class None; this backbone knows classes 0..3"),
        ([{"label": 1, "prompt": "a fox"}], "line 1 of the plan: this backbone reads no text"),
        ([{"label": 1}], "-n 2: the plan has 1 lines"),
    ],
)
def test_plans_that_do_not_suit_a_backbone(lines: list[dict[str, Any]], message: str) -> None:
    plan = Plan(
        SampleConfig(num_images=2), tuple(PlanLine(**line) for line in lines * (2 if "-n" not in message else 1))
    )
    with pytest.raises(ConfigError) as caught:
        plan.check(tiny_dit())
    assert message in caught.value.message


def test_guidance_of_a_line_needs_a_null_condition() -> None:
    plan = Plan(SampleConfig(num_images=1), (PlanLine(label=0, guidance=2.0),))
    plan.check(tiny_dit())
    with pytest.raises(ConfigError, match="line 1 of the plan: guidance needs a null condition"):
        plan.check(tiny_dit(null_row=False))


def test_an_image_depends_on_its_line_alone() -> None:
    backbone = tiny_dit()

    def draw(*lines: dict[str, Any]) -> list[bytes]:
        plan_lines = tuple(PlanLine(**line) for line in lines)
        options = {"num_images": len(lines), "batch_size": 2, "steps": 3, "guidance": 1.5}
        config = SampleConfig(plan=Plan(SampleConfig(), plan_lines).digest, **options)
        plan = Plan(resolve(config, backbone), plan_lines)
        chunks = sample(backbone, backbone=backbone, codec=PixelCodec(3), config=plan.config, plan=plan)
        return [image.pixels.tobytes() for chunk in chunks for image in chunk]

    torch.set_num_threads(1)
    fox, cat = {"label": 1, "seed": 7}, {"label": 2, "seed": 8}
    assert draw(fox, cat) == draw(cat, fox)[::-1]
    assert draw(fox, fox)[0] == draw(fox, cat)[0]
    assert draw(fox, fox)[0] != draw(fox, fox)[1]  # a seed counts its own images


def test_balanced_is_exact_or_refused() -> None:
    resolve(SampleConfig(num_images=8, balanced=True), tiny_dit())
    with pytest.raises(ConfigError, match="--balanced: 10 images are not a multiple of 4") as caught:
        resolve(SampleConfig(num_images=10, balanced=True), tiny_dit())
    assert caught.value.hint == "Give -n 12."


class Watch(torch.nn.Module):
    """A denoiser that notes how many images it is asked for at each timestep."""

    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.backbone, self.calls = backbone, []  # type: ignore[assignment]

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        self.calls.append((float(timesteps[0]), len(x)))
        return self.backbone(x, timesteps, condition)


def test_outside_of_the_guidance_interval_one_forward_is_enough() -> None:
    backbone = tiny_dit()
    watch = Watch(backbone)
    options: dict[str, Any] = {"num_images": 2, "batch_size": 2, "steps": 10, "sampler": "ddim", "guidance": 3.0}
    config = resolve(SampleConfig(guidance_interval=(0.25, 0.65), **options), backbone)
    list(sample(watch, backbone=backbone, codec=PixelCodec(3), config=config))
    assert len(watch.calls) == 10
    assert {t for t, count in watch.calls if count == 4} == {300, 400, 500, 600}
    assert {count for _, count in watch.calls} == {2, 4}
    for wrong in ((0.5, 0.5), (-0.1, 1.0), (0.0, 1.1)):
        with pytest.raises(ValueError, match="give two shares of the schedule"):
            SampleConfig(guidance_interval=wrong)


@pytest.mark.parametrize("flow", ["sit", "repa"])
def test_the_guidance_interval_of_a_flow_counts_from_data_to_noise(flow: Any) -> None:
    backbone = tiny_dit()
    backbone.schedule = ScheduleConfig(flow=flow, prediction="velocity")
    watch = Watch(backbone)
    options: dict[str, Any] = {"num_images": 2, "batch_size": 2, "steps": 8, "sampler": "ode-euler", "guidance": 3.0}
    config = resolve(SampleConfig(guidance_interval=(0.3, 0.7), **options), backbone)
    list(sample(watch, backbone=backbone, codec=PixelCodec(3), config=config))
    shares = {1 - level if flow == "sit" else level: count for level, count in watch.calls}
    assert sorted(shares) == [k / 8 for k in range(1, 9)]
    assert {share for share, count in shares.items() if count == 4} == {0.375, 0.5, 0.625}
