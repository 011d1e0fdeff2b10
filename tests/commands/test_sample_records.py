"""plan.jsonl and samples.json have sums too: --verify, a further call and dmp eval notice a change."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.data import ABOUT, PLAN
from dmp_cli.sampling.folder_records import FolderRecords

from .conftest import Run


@pytest.fixture
def command(run: Run, patch: Path) -> list[Any]:
    """A command that has drawn six images into ``s``."""
    words = ["sample", "--patch", patch, "-n", 6, "--batch-size", 2, "--steps", 2, "-o", "s"]
    run(*words, "-q")
    return words


def test_the_sums_are_those_of_sha256sum(command: list[Any], tmp_path: Path) -> None:
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS.records"], cwd=tmp_path / "s").returncode == 0
    lines = (tmp_path / "s" / "SHA256SUMS.records").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["plan.jsonl", "samples.json"]


def test_a_changed_plan_is_said_and_written_anew(run: Run, command: list[Any], tmp_path: Path) -> None:
    plan = tmp_path / "s" / "plan.jsonl"
    before = plan.read_text()
    plan.write_text(before.replace('"seed": 0', '"seed": 1'))
    refused = run("sample", "--verify", "-o", "s", code=1).stderr
    assert "plan.jsonl was changed" in refused
    said = run(*command).stderr
    assert "s/plan.jsonl was changed after it was written; it is written anew" in said
    assert plan.read_text() == before
    assert "are as they were written" in run("sample", "--verify", "-o", "s").stdout
    assert "plan.jsonl was changed" not in run(*command).stderr


def test_a_changed_record_is_noticed_by_all(run: Run, command: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "s" / "samples.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "origin": {**about["origin"], "device": "cuda"}}))
    assert "samples.json was changed" in run("sample", "--verify", "-o", "s", code=1).stderr
    words = ["eval", "--samples", "s", "--reference", "s", "--features", "pixels", "-o", "scores", "-q"]
    assert "images of s are not as they were drawn: samples.json was changed" in run(*words, code=1).stderr
    path.unlink()
    assert "holds no samples" in run("sample", "--verify", "-o", "s", code=1).stderr


def test_more_images_keep_the_sums_true(run: Run, command: list[Any]) -> None:
    run(*[8 if word == 6 else word for word in command], "-q")
    assert "8 images in s are as they were written" in run("sample", "--verify", "-o", "s").stdout
    run(*command, "-q")  # fewer than there are: the longer plan stays
    assert "8 images in s are as they were written" in run("sample", "--verify", "-o", "s").stdout


def test_a_kill_between_two_files_leaves_nothing_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = FolderRecords(tmp_path)
    records.write(PLAN, lambda: [b"old\n"])

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dmp_cli.sampling.folder_records.staged_file", killed)
        with pytest.raises(KeyboardInterrupt):
            records.write(PLAN, lambda: [b"new\n"])
    assert records.faults() == []  # the old file is as recorded, and the new one would be
    (tmp_path / PLAN).write_bytes(b"new\n")
    assert records.faults() == []
    records.write(PLAN, lambda: [b"new\n"])
    assert (
        tmp_path / "SHA256SUMS.records"
    ).read_text() == f"{hashlib.sha256(b'new' + bytes([10])).hexdigest()}  {PLAN}\n"
    (tmp_path / PLAN).write_bytes(b"old\n")
    assert records.faults() == ["plan.jsonl was changed"]
    assert ABOUT not in (tmp_path / "SHA256SUMS.records").read_text()
