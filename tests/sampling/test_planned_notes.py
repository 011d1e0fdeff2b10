"""dmp_cli.sampling.planned_notes: what a plan says of the images of a tar, without reading all of it for each."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.errors import ConfigError
from dmp_cli.sampling import planned_notes
from dmp_cli.sampling.planned_notes import PlannedNotes

COUNT = 2500


def written(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n\n"[: 1 + item["index"] % 2] for item in items))
    return path


def expected(items: list[dict[str, Any]], group: int) -> dict[int, dict[str, str]]:
    found = {}
    for item in items:
        if 1000 * group <= item["index"] < 1000 * (group + 1):
            both = {"cls": item.get("class"), "txt": item.get("prompt")}
            found[item["index"]] = {key: str(value) for key, value in both.items() if value is not None}
    return found


@pytest.mark.parametrize("shuffled", [False, True])
def test_each_group_has_its_own_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffled: bool) -> None:
    parsed: list[str] = []
    parse = planned_notes.parse_json

    def counted(text: str, **how: Any) -> Any:
        parsed.append(text)
        return parse(text, **how)

    monkeypatch.setattr(planned_notes, "parse_json", counted)
    items = [{"index": i, "class": i % 7} if i % 3 else {"index": i, "prompt": f"fünf\u2028 {i}"} for i in range(COUNT)]
    if shuffled:
        random.Random(0).shuffle(items)
    notes = PlannedNotes(written(tmp_path / "plan.jsonl", items))
    assert [notes.of(group) for group in (1, 0, 2, 3)] == [expected(items, group) for group in (1, 0, 2, 3)]
    if not shuffled:
        assert len(parsed) == 2 * COUNT  # once to find all groups, and each of them once


def test_a_changed_plan_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "plan.jsonl", [{"index": 0, "class": 1}])
    notes = PlannedNotes(path)
    assert notes.of(0) == {0: {"cls": "1"}}
    assert notes.of(1) == {}
    written(path, [{"index": 0, "class": 2}])
    os.utime(path, ns=(1, 1))
    assert notes.of(0) == {0: {"cls": "2"}}
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"plan\.jsonl"):
        notes.of(0)
    path.unlink()
    with pytest.raises(ConfigError, match=r"cannot read .*plan\.jsonl"):
        notes.of(0)
