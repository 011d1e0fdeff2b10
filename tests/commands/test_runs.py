"""``dmp runs`` and ``dmp env``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.storage import own
from tests.builders import write_images

from .conftest import Run, files_in, parse


def found(run: Run, *words: Any) -> dict[str, dict[str, Any]]:
    return {one["path"]: one for one in parse(run("runs", *words, "--json"))["found"]}


@pytest.mark.slow
def test_all_that_was_written_is_listed(
    run: Run, backbone: list[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "held", seed=5)
    train = ["train", *backbone, "--data", "images", "--batch-size", 4, "--val-data", "held", "--val-draws", 20, "-q"]
    run(*train, "--steps", 3, "--save-every", 1, "-o", "runs/done")
    run("sample", "--patch", "runs/done/patch.safetensors", "-n", 4, "--steps", 2, "-o", "drawn", "-q")
    run("eval", "--samples", "drawn", "--reference", "images", "--features", "pixels", "-o", "scores", "-q")
    run("patch", *backbone, "-o", "new.safetensors", "-q")
    shutil.copytree("runs/done", "runs/killed")
    lines = Path("runs/killed/log.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["step"] < 3]
    Path("runs/killed/log.jsonl").write_text("\n".join(kept) + "\n{half a li")
    (tmp_path / "other").mkdir()
    for name in ("config.json", "samples.json", "report.json", "log.jsonl"):
        (tmp_path / "other" / name).write_text('{"train": 3, "rows": [{"scores": {}}]}')
    before = files_in(tmp_path)

    listed = found(run)
    assert files_in(tmp_path) == before
    assert set(listed) == {"runs/done", "runs/killed", "drawn", "scores", "new.safetensors"}
    done = listed["runs/done"]
    assert (done["kind"], done["steps"], done["of_steps"], done["state"]) == ("run", 3, 3, "done")
    assert done["about"] == "dmp of dit on images"
    held = [json.loads(line).get("held_out") for line in lines]
    assert done["held_out"] == [one["loss"] for one in held if one][-1]
    assert listed["runs/killed"]["state"] == "stopped"
    assert listed["runs/killed"]["steps"] < 3
    assert listed["drawn"]["about"] == "4 images, ddpm, 2 steps"
    report = json.loads(Path("scores/report.json").read_text())
    assert f"fid (pixels) {report['rows'][0]['scores']['fid']['value']:.4g}" in listed["scores"]["score"]
    assert listed["new.safetensors"]["steps"] == 0

    with own(Path("runs/killed"), command="dmp train"):
        assert found(run, "runs")["runs/killed"]["state"].startswith("running: dmp train, host ")
    Path("runs/killed/.owner.json").write_text(json.dumps({"command": "dmp train", "host": "elsewhere", "pid": 1}))
    Path("runs/killed/.owner.lock").touch()
    assert found(run, "runs")["runs/killed"]["state"] == "running: dmp train, host elsewhere, pid 1"

    monkeypatch.setenv("COLUMNS", "80")
    page = run("runs").stdout
    assert "5 found, the newest last" in page
    assert max(map(len, page.splitlines())) <= 80


def test_a_killed_owner_runs_no_more(run: Run, backbone: list[str], images: Path) -> None:
    run("train", *backbone, "--data", images, "--batch-size", 4, "--steps", 2, "-o", "out", "-q")
    import socket

    Path("out/.owner.json").write_text(json.dumps({"command": "dmp train", "host": socket.gethostname(), "pid": 1}))
    Path("out/.owner.lock").touch()
    assert found(run)["out"]["state"] == "done"


def test_where_there_is_nothing(run: Run, tmp_path: Path) -> None:
    assert "nothing that dmp has written is in ." in run("runs").stdout
    assert "missing is no folder" in run("runs", "missing", code=1).stderr
    assert not files_in(tmp_path)


def test_env_says_what_there_is_and_no_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("HF_TOKEN", "do not tell")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    told = parse(run("env", "--json"))
    assert told["libraries"]["torch"] == torch.__version__.split("+")[0] or torch.__version__
    assert told["variables"]["OMP_NUM_THREADS"] == "3"
    assert told["variables"]["HF_TOKEN"] == "(not shown)"
    assert told["devices"][0] == "cpu"
    assert "do not tell" not in run("env").stdout
