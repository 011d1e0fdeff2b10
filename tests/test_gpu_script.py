"""``python -m benchmarks gpu``: all of its code, on a CPU with tiny sizes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_study
from benchmarks.gpu_study import Study, go_on


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
    assert len(told) == len(lines) == 21
    assert told["identity, and float32 against float64 of a CPU"].startswith("no bit changed; forward ")
    assert {"SD3 of medium's shape, 2 images, dmp, compiled", "U-Net of SD 1.5's shape, 2 images, full"} <= told.keys()
    assert {"dit-s2, 2 images, dmp, compiled", "NCCL and FSDP2 with one process"} <= told.keys()
    assert not any("FAILED" in result for result in told.values())
    file.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:40])  # as a kill leaves it
    capsys.readouterr()
    assert gpu.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("| NCCL and FSDP2")
    assert gpu.main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        "21 rows, all there",
        "study: all there; bases: 1, rates tried: 1, ablations: 0",
    ]
    assert (tmp_path / "gpu" / "study" / "rates" / "dmp-0.001" / "patch.safetensors").exists()
    assert (tmp_path / "gpu" / "table.md").read_text().count("\n| ") == 22


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    assert "--dry" in capsys.readouterr().err


def _study(folder: Path, script: str) -> Study:
    path = folder / "study.sh"
    path.write_text("out=$2\nmkdir -p $out/base-1 $out/rates/a\n" + script)
    return Study(path, folder / "none.zip", folder / "study", "gpu")


def test_a_study_is_stopped_in_time_keeps_what_is_done_and_goes_on(tmp_path: Path) -> None:
    study = _study(
        tmp_path,
        """
        [ -e $out/base-1/done ] && { touch $out/rates/a/done; exit 0; }
        trap 'touch $out/saved; exit 0' TERM
        touch $out/base-1/done
        sleep 600 & wait
        """,
    )
    first = study.folder / "base-1" / "done"
    told = go_on(study, left=lambda: 0.0 if first.exists() else 1.0)
    assert told == "stopped in time; bases: 1, rates tried: 0, ablations: 0: call it again to go on"
    assert (study.folder / "saved").exists()
    assert not study.done.exists()
    assert go_on(study, left=lambda: 0.0).startswith("no time left; bases: 1, rates tried: 0")
    for _ in range(2):
        assert go_on(study, left=lambda: 1.0) == "all there; bases: 1, rates tried: 1, ablations: 0"
        study.script.write_text("exit 1")  # it is not called again


def test_a_study_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_study, "_TO_SAVE", 0.2)
    study = _study(tmp_path, "trap '' TERM\necho $$ > $out/number\ntouch $out/base-1/done\nwhile :; do sleep 600; done")
    first = study.folder / "base-1" / "done"
    assert go_on(study, left=lambda: 0.0 if first.exists() else 1.0).startswith("stopped in time; bases: 1")
    with pytest.raises(ProcessLookupError):
        os.kill(int((study.folder / "number").read_text()), 0)


def test_a_study_that_fails_says_its_last_line(tmp_path: Path) -> None:
    study = _study(tmp_path, "echo 'no module named so'\necho\nexit 3")
    assert go_on(study, left=lambda: 1.0).startswith("FAILED: no module named so (")
