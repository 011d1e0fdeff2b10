"""``dmp train`` for a user without a home folder, or with a read-only one: one sentence, or no difference at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from .conftest import Run


@pytest.fixture
def common(backbone: list[str], images: Path) -> list[Any]:
    """A training that keeps what it reads of the images."""
    return ["train", *backbone, "--data", images, "--batch-size", 4, "--steps", 1, "--latent-store"]


def test_no_home(run: Run, common: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*names: str, **options: object) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("DMP_HOME")
    for name in ("user_data_dir", "user_cache_dir"):
        monkeypatch.setattr(platformdirs, name, none)
    said = run(*common, "-o", "out", code=1).stderr
    assert said == (
        "error: this user has no home folder, and DMP_HOME is not set\n"
        "  Set DMP_HOME to a folder for weights and latents, or name the one for latents with --store-dir.\n"
    )
    assert not Path("out").exists()
    run(*common, "--store-dir", "kept", "-o", "out", "-q")
    run(*common, "--no-latent-store", "-o", "live", "-q")
    assert "no home folder, and DMP_HOME" in run("patch", "--backbone", "dit-b2", "-o", "p", code=1).stderr
    said = run("eval", "--samples", "images/0", "--reference", "images/0", code=1).stderr
    assert "no Inception weights: neither --inception-weights nor $DMP_INCEPTION is given, and this user has no" in said


def test_a_home_that_cannot_be_written(run: Run, common: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("")
    monkeypatch.setenv("DMP_HOME", str(Path("file/home").absolute()))
    message, hint = run(*common, "-o", "out", code=1).stderr.splitlines()
    assert message.startswith("error: the latent store in ")
    assert message.endswith(" cannot be written: this user may not, or the disk is read-only")
    assert "--store-dir" in hint
    assert "DMP_HOME" in hint
    assert not Path("out").exists()


def test_a_complete_store_on_a_read_only_disk(run: Run, common: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run(*common, "--store-dir", "kept", "-o", "first", "-q")

    def read_only(*arguments: Any, **options: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("dmp_cli.storage.store_folder.FileLock", read_only)
    monkeypatch.setattr("dmp_cli.storage.store_folder.make_folder", read_only)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    run(*common, "--store-dir", "kept", "-o", "second", "-q")
    patches = [Path(name, "patch.safetensors").read_bytes() for name in ("first", "second")]
    assert patches[0] == patches[1]
    Path("kept/00000.safetensors").unlink()
    assert "cannot be written: this user may not" in run(*common, "--store-dir", "kept", "-o", "x", code=1).stderr
