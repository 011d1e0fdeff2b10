"""``python -m benchmarks gpu``: all of its code, on a CPU with tiny sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu


@pytest.mark.slow
def test_it_measures_every_row_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **how: compile(module, backend="eager", **how))
    arguments = ["--dry", "-o", str(tmp_path / "gpu")]
    assert gpu.main(arguments) == 0
    file = tmp_path / "gpu" / "rows.jsonl"
    lines = file.read_text().splitlines()
    told = {line["row"]: line["result"] for line in map(json.loads, lines)}
    assert len(told) == len(lines) == 14
    assert told["identity, and float32 against float64 of a CPU"].startswith("no bit changed; forward ")
    assert {"dit-s2, 2 images, dmp, compiled", "NCCL and FSDP2 with one process"} <= told.keys()
    assert not any("FAILED" in result for result in told.values())
    file.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:40])  # as a kill leaves it
    capsys.readouterr()
    assert gpu.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("| NCCL and FSDP2")
    assert gpu.main(arguments) == 0
    assert capsys.readouterr().out == "14 rows, all there\n"
    assert (tmp_path / "gpu" / "table.md").read_text().count("\n| ") == 15


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    assert "--dry" in capsys.readouterr().err
