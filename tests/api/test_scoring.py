"""``evaluate`` of Python: the scores of ``dmp eval``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def test_images_in_memory_have_the_scores_of_their_files(images: Path, tmp_path: Path) -> None:
    folders = [write_images(tmp_path / name, seed=seed) for name, seed in (("base", 1), ("other", 2))]
    files = evaluate(folders, images, features="pixels")
    loaded = [[Image.open(path) for path in sorted(folder.rglob("*.png"))] for folder in folders]
    sets = {"base": loaded[0], "other": np.stack([np.asarray(image) for image in loaded[1]])}
    found = evaluate(sets, images, features="pixels")
    assert [row.samples for row in found.rows] == ["base", "other"]
    assert [row.scores for row in found.rows] == [row.scores for row in files.rows]
    assert not any("npz" in told for told in found.warnings)
    with pytest.raises(DMPError, match="by the name of their set"):
        evaluate(loaded[0], images)
    with pytest.raises(DMPError, match="base: these are no images of one size"):
        evaluate({"base": np.zeros((4, 8, 8, 3))}, images)


def test_what_cannot_be_scored_is_refused(images: Path) -> None:
    with pytest.raises(DMPError, match="no reference given"):
        evaluate(images)
    with pytest.raises(DMPError, match="takes no further options"):
        evaluate(EvalConfig(samples=(images,), reference=images), features="pixels")
    with pytest.raises(DMPError, match="metrics='nice'"):
        evaluate(images, images, metrics=("nice",))
