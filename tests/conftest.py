"""One thread, no network, no user folders: what every test runs under."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from dmp_cli.errors import DMPError
from dmp_cli.runtime.signals import STOP_SIGNALS

# A shell that starts the suite in the background has it ignore SIGINT, and nohup SIGHUP; so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when the hub's library is imported


@pytest.fixture
def own_handlers() -> Iterator[None]:
    """The handlers of signals as they were, after a test."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _sealed(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    torch.set_num_threads(1)
    # Tests compare messages as they stand in the code, which is as the command line says them.
    monkeypatch.setattr(DMPError, "__str__", DMPError.told)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("DMP_HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "DMP_INCEPTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
