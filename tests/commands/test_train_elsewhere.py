"""``dmp train`` on tables and on shards behind an address."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.conftest import Run
from tests.data.shard_files import png, write_shards
from tests.data.test_remote_shards import serving

STEPS = ["--steps", 2, "--batch-size", 2, "-q"]


def test_a_table_by_a_relative_path_goes_on_from_another_folder(
    run: Run, backbone: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    kinds = datasets.Features(
        {"picture": datasets.Image(), "other": datasets.Image(), "label": datasets.Value("int64")}
    )
    pictures = [{"bytes": png(row), "path": None} for row in range(8)]
    content = {"picture": pictures, "other": pictures, "label": [row % 4 for row in range(8)]}
    (tmp_path / "table").mkdir()
    datasets.Dataset.from_dict(content, features=kinds).to_parquet(str(tmp_path / "table" / "train.parquet"))
    refused = run("train", *backbone, "--data", "hf:table", *STEPS, code=1).stderr
    assert "Name one with --image-column" in refused
    run("train", *backbone, "--data", "hf:table", "--image-column", "picture", *STEPS)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == "table-dmp"
    told = json.loads((folder / "config.json").read_text())
    assert told["options"]["data"] == f"hf:{tmp_path}/table"
    assert told["train"]["image_column"] == "picture"
    assert told["images"]["count"] == 8
    assert told["images"]["classes"] == ["0", "1", "2", "3"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run("train", "--resume", "-o", folder, "--steps", 3, "-q")
    from dmp_cli.patching import read_record

    training = read_record(folder / "patch.safetensors").training or {}
    assert (training["data"], training["steps_done"], training["image_column"]) == ("table", 3, "picture")


@pytest.mark.slow
def test_shards_of_a_server_as_those_here(run: Run, backbone: list[str], tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    write_shards(tmp_path / "here", [5, 4])
    run("train", *backbone, "--data", "here", *STEPS, "-o", "one")
    with serving(tmp_path / "here") as files:
        address = f"{files.address}/train-{{000..001}}.tar"
        run("train", *backbone, "--data", address, "--cache-size", 0, "--workers", 1, *STEPS, "-o", "two")
        run("train", "--resume", "-o", "two", "--steps", 3, "-q")
        run("train", "--resume", "-o", "one", "--steps", 3, "-q")
    told = json.loads((tmp_path / "two" / "config.json").read_text())
    assert told["options"]["data"] == address
    assert told["data_origin"] == {"train-000.tar": "one", "train-001.tar": "one"}
    losses = [[json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
              for name in ("one", "two")]  # fmt: skip
    assert losses[0] == losses[1]
