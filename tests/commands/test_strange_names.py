"""Names, captions and prompts of strangers are shown in messages; none of their characters reaches the terminal raw."""

from __future__ import annotations

import logging
import shutil
import unicodedata
import warnings
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import Result

from dmp_cli.commands import console
from dmp_cli.commands.console import Printer
from dmp_cli.config import CommonOptions

from .conftest import Run

EVIL = "a\x1b[31m\x1b]0;title\x07\x9b2J\x7f\u202egnp\rerror: forged"
SHOWN = r"a\u001b[31m\u001b]0;title\u0007\u009b2J\u007f\u202egnp\rerror: forged"
FORGED = "x\nerror: forged"


def check_plain(*texts: str) -> None:
    for text in texts:
        raw = {letter for letter in text if unicodedata.category(letter) == "Cc" and letter != "\n"}
        assert not raw | (set(text) & {"\u202e", "\u2028"}), repr(text)
        assert not any(line.startswith("error: forged") for line in text.splitlines())


def said(result: Result) -> str:
    check_plain(result.stdout, result.stderr)
    return result.stdout + result.stderr


def test_class_folders_and_images(run: Run, backbone: list[str], images: Path) -> None:
    first, second, *_ = sorted(images.iterdir())
    first.rename(images / EVIL)
    second.rename(images / FORGED)
    (images / EVIL / f"{EVIL}.png").write_bytes(b"no image")
    (images / FORGED / f"{FORGED}.png").write_bytes(b"no image")
    how = ["train", *backbone, "--data", images, "--batch-size", 8, "--seed", 1]
    text = said(run(*how, "--steps", 3, "-o", EVIL))
    assert f"{SHOWN}/{SHOWN}.png" in text  # the warning of an unreadable image
    assert r"x\nerror: forged" in text
    assert "4 classes: " in text
    assert SHOWN in said(run(*how, "--steps", 3, "-o", EVIL, code=1))  # which exists
    assert SHOWN in said(run(*how, "-o", f"new-{EVIL}", "--dry-run"))
    assert SHOWN in said(run(*how, "--steps", 3, "--max-bad", 0, "-o", "other", code=1))
    assert SHOWN in said(run("eval", "--samples", images, "--reference", images, "--features", "pixels", code=1))
    (images / EVIL / f"{EVIL}.png").unlink()
    (images / FORGED / f"{FORGED}.png").unlink()
    text = said(run("eval", "--samples", images / EVIL, "--reference", images / FORGED, "--features", "pixels"))
    assert SHOWN.partition("]")[0] in text.replace("\n", "")  # in a table, which folds
    check_plain((Path("scores") / "report.md").read_text(encoding="utf-8"))
    check_plain((Path("scores") / "report.html").read_text(encoding="utf-8").replace("\nerror: ", " "))


def test_json_is_plain_too(run: Run, backbone: list[str], images: Path) -> None:
    shutil.move(images, EVIL)
    for more in ([], ["--json"]):
        said(run("train", *backbone, "--data", EVIL, "-o", "out", "--dry-run", *more))


@pytest.mark.parametrize("option", ["--prompts", "--plan", "--config"])
def test_files_of_text(option: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / EVIL
    path.write_text(f"a fox --{EVIL} 1\n{FORGED}")
    assert SHOWN in said(run("sample", "--backbone", "digits", option, path, code=1))


def test_tensors(run: Run, checkpoint: Path, backbone: list[str]) -> None:
    tensors = torch.load(checkpoint, weights_only=True)
    tensors["ema"][EVIL] = torch.zeros(3)
    torch.save(tensors, checkpoint)
    text = said(run("patch", *backbone, "-o", "p.safetensors", code=1))
    assert SHOWN in text
    assert "\n    unexpected (1): " in text  # lines of our own stay lines


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def terminal(stream: object) -> Console:
        return Console(file=stream, force_terminal=True, width=300, color_system=None)  # type: ignore[arg-type]

    monkeypatch.setattr(console, "_console", terminal)
    with Printer(CommonOptions()).progress(EVIL, 2) as advance:
        advance(1, f"{EVIL} [bold]b[/bold]")
    text = capsys.readouterr().err
    assert SHOWN in text
    assert "[bold]b[/bold]" in text
    assert "\x1b[31m" not in text
    assert "\u202e" not in text


def test_names_are_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    Printer(CommonOptions()).say(":smile: [red]a[/red]")
    assert capsys.readouterr().out == ":smile: [red]a[/red]\n"


def test_warnings_and_logs_of_libraries(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("--version")  # any command
    handler, log = logging.StreamHandler(), logging.getLogger("strange")
    log.addHandler(handler)
    try:
        log.warning("loaded %s", EVIL)
    finally:
        log.removeHandler(handler)
    print(warnings.formatwarning(UserWarning(f"{EVIL}{FORGED}"), UserWarning, "a.py", 3))
    printed = capsys.readouterr()
    assert SHOWN in printed.err
    assert f"a.py:3: UserWarning: {SHOWN}x\\nerror: forged" in printed.out
    check_plain(printed.err, printed.out)
