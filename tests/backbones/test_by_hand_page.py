"""The code of docs/by-hand.md, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from .by_hand_models import cogview3

PAGE = Path(__file__).parents[2] / "docs" / "by-hand.md"


def test_the_code_of_the_page_trains_a_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"<!-- the code -->\n```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert found is not None
    foreign, fresh = cogview3(), cogview3()
    with torch.no_grad():
        bare = foreign.model(**foreign.call, return_dict=False)[0]
    target = bare + 0.1
    names: dict[str, Any] = {
        "transformer": foreign.model,
        "batches": [(foreign.call, target)] * 20,
        "pipe": SimpleNamespace(transformer=fresh.model),
    }
    monkeypatch.chdir(tmp_path)
    exec(compile(found[1], str(PAGE), "exec"), names)
    with torch.no_grad():
        patched = fresh.model(**foreign.call, return_dict=False)[0]
        assert torch.equal(patched, foreign.model(**foreign.call, return_dict=False)[0])
    assert (patched - target).square().mean() < (bare - target).square().mean()
    assert {path.name for path in tmp_path.iterdir()} == {"cogview3.safetensors"}
