"""Presets: each resolves, the page that explains them says the same values, the command line wins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dmp_cli.config import TrainConfig, build
from dmp_cli.config.presets import PRESETS, preset_options
from dmp_cli.errors import ConfigError

PAGE = Path(__file__).parents[2] / "docs" / "method.md"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_run(name: str) -> None:
    options = preset_options(name)
    config = build(
        TrainConfig, data=Path("ffhq"), **{k: v for k, v in options.items() if k in TrainConfig.model_fields}
    )
    assert config.batch_size == 128
    assert options.keys() - TrainConfig.model_fields.keys() <= {"backbone", "image_size"}


def test_the_papers_budgets_by_hand() -> None:
    assert {
        name: (values.get("backbone"), values["image_size"], values["steps"]) for name, values in PRESETS.items()
    } == {
        "paper-ffhq-b2": ("dit-b2", 256, 30_000),
        "paper-ffhq-l2": ("dit-l2", 256, 50_000),
        "paper-coco-b2": (None, 256, 40_000),
        "paper-sd15": ("sd-v1.5", 512, 50_000),
    }


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        preset_options("paper-fhq-b2")
    assert "paper-ffhq-b2" in str(caught.value.hint)


def test_the_page_says_the_same_values() -> None:
    section = PAGE.read_text(encoding="utf-8").split("## Presets")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", section, flags=re.MULTILINE)
    said = {field: [value.strip() for value in values.split(";")] for field, values, _ in rows}
    names = list(PRESETS)
    for field in {field for values in PRESETS.values() for field in values}:
        expected = [str(PRESETS[name].get(field, "-")) for name in names]
        assert said[field] == (expected if len(set(expected)) > 1 else expected[:1]), field
    sources = {source.strip() for _, _, source in rows}
    assert all(re.match(r"(paper|authors' code|ours)", source) for source in sources)
