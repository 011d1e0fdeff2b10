"""dmp_cli.evaluation.trial: a stranger's network is tried in another process, which may die or take too long."""

# No "from __future__ import annotations": torch.jit.script reads annotations as they stand.
import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dmp_cli.errors import MetricError
from dmp_cli.evaluation import inception, trial
from dmp_cli.evaluation.features import load_extractor
from dmp_cli.evaluation.trial import try_network

torch.set_num_threads(1)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Huge(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(1_000_000_000_000_000) + x.mean((2, 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.jit.script(Mean()).save(str(tmp_path / "network.pt"))
    return tmp_path / "network.pt"


def test_the_shape_for_one_image(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('a file of the current folder was run')")
    monkeypatch.chdir(tmp_path)
    assert try_network(path) == (1, 3)


def test_a_tensor_larger_than_any_memory(tmp_path: Path) -> None:
    torch.jit.script(Huge()).save(str(tmp_path / "huge.pt"))
    with pytest.raises(MetricError, match=r"huge\.pt: the network does not take images .*allocate"):
        load_extractor(str(tmp_path / "huge.pt"))


def test_a_network_that_takes_too_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_CODE", "import time; time.sleep(3600)")
    monkeypatch.setattr(trial, "_SECONDS", 0.1)
    with pytest.raises(MetricError, match=r"network\.pt: the network has not ended on one image after 0\.1 seconds"):
        load_extractor(str(path))


@pytest.mark.parametrize(
    ("code", "how"), [("import os; os.kill(os.getpid(), 9)", "SIGKILL"), ("raise SystemExit(3)", "exit status 3")]
)
def test_a_network_that_ends_its_process(code: str, how: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_CODE", code)
    with pytest.raises(MetricError, match=rf"network\.pt: the network ended the process .*\({how}\)"):
        load_extractor(str(path))


def test_another_shape_than_at_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_CODE", "print('[1, 4]')")
    with pytest.raises(MetricError, match=r"gave \(1, 4\) for one image at first, then \(1, 3\)"):
        load_extractor(str(path))


def test_the_known_inception_needs_no_trial(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_CODE", "raise SystemExit(3)")
    monkeypatch.setattr(inception, "INCEPTION_DIGEST", hashlib.sha256(path.read_bytes()).hexdigest())
    assert load_extractor(str(path)).width == 3
