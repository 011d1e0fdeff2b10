"""Values that are typed as one word and kept as several."""

from __future__ import annotations

import pytest

from dmp_cli.config import EvalConfig, SampleConfig, SampleOptions, TrainConfig, build
from dmp_cli.errors import ConfigError


def test_words_are_split() -> None:
    assert build(TrainConfig, data="x", lora_targets="qkv, proj").lora_targets == ("qkv", "proj")
    assert build(SampleConfig, classes="207,360").classes == (207, 360)
    assert build(SampleConfig, classes="all").classes is None
    assert build(SampleConfig, guidance_interval="0.1,0.9").guidance_interval == (0.1, 0.9)
    assert build(SampleOptions, grid="2x3").grid == (2, 3)
    assert build(SampleOptions, shard="3/8").shard == (2, 8)
    base = {"samples": ("a",), "reference": "r"}
    assert build(EvalConfig, **base, metrics="fid, kid").metrics == ("fid", "kid")
    assert build(EvalConfig, **base, crop="256").crop == 256
    assert build(EvalConfig, **base, crop="none").crop == "none"


def test_what_is_kept_is_taken_as_it_is() -> None:
    assert build(SampleConfig, classes=(1, 2)).classes == (1, 2)
    assert build(SampleOptions, grid=(2, 3)).grid == (2, 3)


@pytest.mark.parametrize(
    ("record", "field", "word", "message"),
    [
        (SampleConfig, "classes", "one", "--classes one: give class indices"),
        (SampleConfig, "guidance_interval", "0.5", "--guidance-interval 0.5: give two shares"),
        (SampleOptions, "grid", "4", "--grid 4: give rows and columns"),
        (SampleOptions, "grid", "0x4", "--grid 0x4: give rows and columns"),
        (SampleOptions, "shard", "0/4", "--shard 0/4: give the number of the part"),
        (SampleOptions, "shard", "5/4", "--shard 5/4: give the number of the part"),
    ],
)
def test_what_cannot_be_split_is_refused_by_its_option(record, field: str, word: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(record, **{field: word})
    assert caught.value.message.startswith(message)
