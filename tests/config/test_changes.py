"""How settings differ, in words: every option by name, with both values, in few letters."""

from __future__ import annotations

from typing import Any

import pytest

from dmp_cli.config import describe_changes

DIGESTS = "0123456789abcdef" * 4, "fedcba9876543210" * 4


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"lr": 0.1}, {"lr": 0.1}, ""),
        ({"lr": 0.1, "seed": 3}, {"lr": 0.5, "seed": 3}, "lr 0.1, now 0.5"),
        ({"batch_size": 4, "flip": True}, {"batch_size": 8, "flip": False}, "batch-size 4, now 8; flip on, now off"),
        ({}, {"adapter": DIGESTS[0]}, "adapter none, now 0123456789ab…"),
        (
            {"codec": {"digest": DIGESTS[0]}},
            {"codec": {"digest": DIGESTS[1]}},
            "codec digest 0123456789ab…, now fedcba987654…",
        ),
        ({"patch": {"gate": "linear"}}, {"patch": {"gate": "attention"}}, "gate linear, now attention"),
        ({"patch": None}, {"patch": {"gate": "linear"}}, "patch none, now set"),
        ({"patch": DIGESTS[0]}, {"patch": None}, "patch 0123456789ab…, now none"),
        ({"images": {"count": 8}}, {"images": {"count": 12, "new": None}}, "images count 8, now 12"),
        ({"classes": [1, 2]}, {"classes": [1, 2, 3]}, "classes 1,2, now 1,2,3"),
        ({"classes": [*range(99)]}, {"classes": None}, "classes 99 values, now none"),
        ({"data": "a" * 50}, {"data": "b"}, f"data {'a' * 40}…, now b"),
        (
            {"backbone": {"family": "dit", "sizes": {"depth": 12, "width": 3}}},
            {"backbone": {"family": "unet", "sizes": {"channels": 4}}},
            "backbone family dit, now unet",
        ),
        (
            {"backbone": {"family": "dit", "sizes": {"depth": 12}}},
            {"backbone": {"family": "dit", "sizes": {"depth": 3}}},
            "depth 12, now 3",
        ),
    ],
)
def test_in_words(before: dict[str, Any], after: dict[str, Any], expected: str) -> None:
    assert describe_changes(before, after) == expected


def test_a_prompt_among_many() -> None:
    before = {"prompts": [{"text": f"a picture of a fox, number {number}", "seed": None} for number in range(9)]}
    after = {"prompts": [dict(prompt) for prompt in before["prompts"]]}
    after["prompts"][4]["text"] = "a bird"
    assert describe_changes(before, after) == "prompts 5 text a picture of a fox, number 4, now a bird"


def test_many_changes_are_counted() -> None:
    before = dict.fromkeys("abcdefghij", 1)
    assert describe_changes(before, dict.fromkeys("abcdefghij", 2)).endswith("f 1, now 2; and 4 more")
