"""The card of a patch: nothing that a file says becomes markup or metadata."""

from __future__ import annotations

import pytest
import yaml

from dmp_cli.config import CodecRecord, PatchRecord
from dmp_cli.errors import ConfigError
from dmp_cli.hub import Known, build_card
from tests.builders import tiny_dit, zero_patch


def record_of(**training: object) -> PatchRecord:
    record = zero_patch(tiny_dit()).record
    assert record is not None
    told = {"method": "dmp", "seed": 0, "steps_done": 7, "num_images": 1234, "dmp": "1.0", **training}
    return record.model_copy(update={"training": told, "codec": CodecRecord()})


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny backbone that was built and not read has no record of its own; one of a patch needs it."""
    from dmp_cli.backbones.base import Backbone
    from dmp_cli.config import BackboneRecord

    record = BackboneRecord(family="dit", sizes={}, source="/somewhere/x.pt", digest="0" * 64)
    monkeypatch.setattr(Backbone, "record", record, raising=False)


def test_words_of_a_file_stay_words() -> None:
    evil = "x`](javascript:1)<script>|\n---\nlicense: evil"
    card = build_card(record_of(data=evil, method=evil), Known("mit"), repo="a/b", learnt=1234)
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "mit"
    assert "\nlicense: evil" not in card
    cells = [line for line in card.splitlines() if line.startswith("| data |")]
    assert cells == ["| data | `x'](javascript:1)<script>\\|\\n---\\nlicense: evil` |"]


def test_what_is_not_known_is_left_out() -> None:
    bare = build_card(record_of(data="photos"), Known("cc-by-4.0"), repo="a/b", learnt=1234)
    assert "base_model" not in bare
    assert "![" not in bare
    assert "## Scores" not in bare
    assert "trained for 7 steps on 1,234 images of `photos`" in bare
    assert "| numbers learnt | 1,234 |" in bare
    fresh = record_of().model_copy(update={"training": None})
    assert "never trained" in build_card(fresh, Known("mit"), repo="a/b", learnt=1)


def test_the_data_set_and_the_backbone_of_the_hub_are_linked() -> None:
    card = build_card(record_of(data="ann/photos:train"), Known("mit", base_model="ann/dit"), repo="a/b", learnt=1)
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["datasets"] == ["ann/photos"]
    assert (front["base_model"], front["base_model_relation"]) == ("ann/dit", "adapter")
    assert "datasets" not in yaml.safe_load(
        build_card(record_of(data="photos"), Known("mit"), repo="a/b", learnt=1).split("---\n")[1]
    )


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("dit-xl2", "/weights/dit.pt", "facebook/DiT-XL-2-256"),
        (None, "ann/own-dit", "ann/own-dit"),
        (None, f"/x/models--ann--own-dit/snapshots/{'a' * 40}", "ann/own-dit"),
        (None, f"/x/models--ann--own-dit/snapshots/{'a' * 40}/model.safetensors", "ann/own-dit"),
        (None, "/weights/dit.pt", None),
        ("dit-b2", "/weights/dit.pt", None),
    ],
)
def test_where_a_backbone_came_from(name: str | None, source: str, found: str | None) -> None:
    from dmp_cli.patching import base_model_of

    record = record_of()
    backbone = record.backbone.model_copy(update={"name": name, "source": source})
    assert base_model_of(record.model_copy(update={"backbone": backbone})) == found


@pytest.mark.parametrize("licence", ["", "MIT", "a b", "x\ny", "-x"])
def test_a_licence_is_one_word(licence: str) -> None:
    with pytest.raises(ConfigError, match="no licence"):
        Known(licence)
