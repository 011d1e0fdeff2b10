"""Where nothing can be written: one sentence and exit code 1; and what is complete is read without writing."""

from __future__ import annotations

import builtins
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmp_cli.training.run_folder import RunFolder

from .conftest import Run, files_in

READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0) | os.O_DIRECTORY
ReadOnly = Callable[[Path], None]


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> ReadOnly:
    """Let a folder be as on a disk that is mounted read-only, for root too."""

    def protect(folder: Path) -> None:
        def guard(name: str, where: Any, writes: Callable[..., bool]) -> None:
            real = getattr(where, name)

            def guarded(path: Any, *arguments: Any, **options: Any) -> Any:
                named = isinstance(path, (str, os.PathLike))
                inside = named and Path(path).absolute().is_relative_to(folder.absolute())
                if inside and writes(*arguments, **options):
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
                return real(path, *arguments, **options)

            monkeypatch.setattr(where, name, guarded)

        guard("open", os, lambda flags, *rest, **options: bool(flags & ~READING))
        guard("open", builtins, lambda mode="r", *rest, **options: bool(set(mode) & set("wax+")))
        for name in ("replace", "rename", "unlink", "rmdir", "truncate"):
            guard(name, os, lambda *rest, **options: True)
        # what is there already is no error of a read-only disk
        guard("mkdir", os, lambda *rest, **options: False)

    return protect


def drawn(run: Run, patch: Path, *more: Any) -> list[Any]:
    command = ["sample", "--patch", patch, "-n", 6, "--batch-size", 2, "--steps", 2, "-o", "s", *more, "-q"]
    run(*command)
    return command


@pytest.mark.parametrize("more", [(), ("--tar",)])
def test_a_complete_folder_of_samples_on_a_read_only_disk(
    run: Run, patch: Path, read_only: ReadOnly, tmp_path: Path, more: tuple[str, ...]
) -> None:
    command = drawn(run, patch, *more)
    before = {name: (tmp_path / "s" / name).read_bytes() for name in files_in(tmp_path / "s")}
    read_only(tmp_path / "s")
    run(*command)
    assert "6 images in s are as they were written" in run("sample", "--verify", "-o", "s").stdout
    assert {name: (tmp_path / "s" / name).read_bytes() for name in files_in(tmp_path / "s")} == before


def test_a_folder_of_samples_that_lacks_some(run: Run, patch: Path, read_only: ReadOnly, tmp_path: Path) -> None:
    command = drawn(run, patch)
    (tmp_path / "s" / "000002.png").unlink()
    read_only(tmp_path / "s")
    assert "error: cannot write s: Read-only file system" in run(*command, code=1).stderr


def test_a_complete_latent_store_on_a_read_only_disk(
    run: Run, backbone: list[str], images: Path, read_only: ReadOnly, tmp_path: Path
) -> None:
    common = ["train", *backbone, "--data", images, "--steps", 2, "--batch-size", 4, "--sample-every", 0, "-q"]
    run(*common, "--store-dir", "store", "-o", "first")
    read_only(tmp_path / "store")
    run(*common, "--store-dir", "store", "-o", "second")
    assert (tmp_path / "first/patch.safetensors").read_bytes() == (tmp_path / "second/patch.safetensors").read_bytes()


def test_a_full_disk_under_the_log(
    run: Run, backbone: list[str], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if Path(path).name == "log.jsonl" and "a" in mode:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return open(path, mode, *rest, **options)

    monkeypatch.setattr("dmp_cli.storage.atomic.open", full, raising=False)
    words = ["train", *backbone, "--data", images, "--steps", 2, "--batch-size", 4, "-o", "out"]
    assert "error: cannot write out/log.jsonl: no space left on the disk\n" in run(*words, code=1).stderr


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_that_is_removed_while_the_run_goes_on(
    run: Run, backbone: list[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    save = RunFolder.save

    def save_and_lose(folder: RunFolder, *arguments: Any, **options: Any) -> None:
        save(folder, *arguments, **options)
        if (tmp_path / "out").exists():
            shutil.rmtree(tmp_path / "out")
            if again:  # another folder in its place is not that of this run
                (tmp_path / "out").mkdir()

    monkeypatch.setattr(RunFolder, "save", save_and_lose)
    words = ["--steps", 6, "--save-every", 2, "--log-every", 1, "--batch-size", 4, "--sample-every", 0, "-o", "out"]
    said = run("train", *backbone, "--data", images, *words, code=1).stderr
    assert "error: out was removed or replaced while the run went on; its last checkpoint was of step 2\n" in said
    assert "Traceback" not in said
    assert (tmp_path / "out").exists() == again
    assert not again or files_in(tmp_path / "out") == set()


COMMANDS = {
    "train": lambda patch, backbone, images: ["train", *backbone, "--data", images],
    "eval": lambda patch, backbone, images: [
        "eval",
        "--samples",
        images,
        "--reference",
        images,
        "--features",
        "pixels",
    ],
    "sample": lambda patch, backbone, images: ["sample", "--patch", patch, "-n", 2, "--steps", 2],
    "inspect-gates": lambda patch, backbone, images: ["inspect-gates", "--patch", patch],
    "ablate": lambda patch, backbone, images: ["ablate", "controls", "--backbone", "digits"],
    "demo": lambda patch, backbone, images: ["demo"],
    "patch": lambda patch, backbone, images: ["patch", *backbone],
    "convert": lambda patch, backbone, images: ["convert", "--backbone", "digits"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_outputs_that_cannot_be(
    run: Run, patch: Path, backbone: list[str], images: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("mine")
    words, before = COMMANDS[name](patch, backbone, images), files_in(tmp_path)
    for output, reason in {"file/x": "Not a directory", "x" * 300: "File name too long"}.items():
        said = run(*words, "-o", output, code=1).stderr
        assert said.startswith("error: ")
        assert reason in said
        assert len(said.splitlines()) <= 2
    assert files_in(tmp_path) == before
