"""``evaluate`` of Python: the scores of ``dmp eval``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmp_cli import DMPError, EvalConfig, evaluate
from tests.builders import write_images
from tests.commands.conftest import Run


def test_scores_are_those_of_the_command(run: Run, images: Path, tmp_path: Path) -> None:
    base, other = write_images(tmp_path / "base", seed=1), write_images(tmp_path / "other", seed=2)
    run("eval", "--samples", base, "--samples", other, "--reference", images, "--features", "pixels", "-o", "s", "-q")
    remarks: list[str] = []
    found = evaluate([base, str(other)], images, features="pixels", log=remarks.append)
    assert found.to_json() == json.loads(Path("s/report.json").read_text())
    assert remarks
    assert evaluate(base, images, features="pixels").to_json()["rows"] == found.to_json()["rows"][:1]
    whole = EvalConfig(samples=(base, other), reference=images, features="pixels")
    assert evaluate(whole).to_json() == found.to_json()


def test_what_cannot_be_scored_is_refused(images: Path) -> None:
    with pytest.raises(DMPError, match="no reference given"):
        evaluate(images)
    with pytest.raises(DMPError, match="takes no further options"):
        evaluate(EvalConfig(samples=(images,), reference=images), features="pixels")
    with pytest.raises(DMPError, match="metrics='nice'"):
        evaluate(images, images, metrics=("nice",))
