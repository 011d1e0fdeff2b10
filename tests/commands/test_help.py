"""Help that is read: essentials first, nothing cut at 80 columns, and what a shell completes."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from dmp_cli.ablation.arms import TABLES
from dmp_cli.backbones import is_size_name
from dmp_cli.backbones.names import _KNOWN
from dmp_cli.cli import app
from dmp_cli.commands import COMMANDS, completing
from dmp_cli.commands.help import HelpedCommand

RUNNER = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"})
LOADED = {name: entry.load(name) for name, entry in COMMANDS.items()}


def shown(*words: str) -> str:
    result = RUNNER.invoke(app, words)
    assert result.exit_code == 0, result.exception
    assert max(map(len, result.stdout.splitlines())) <= 80
    return result.stdout


def words_of(page: str) -> list[str]:
    return page.replace("│", " ").split()


@pytest.mark.parametrize("name", COMMANDS)
def test_no_name_and_no_value_is_cut(name: str) -> None:
    page = words_of(shown(name, "--help-all"))
    for parameter in LOADED[name].params:
        for flag in parameter.opts if parameter.param_type_name == "option" else ():
            assert any(flag in word.rstrip(",").split("/") for word in page), flag
        value = None if getattr(parameter, "is_flag", False) else parameter.metavar
        assert value is None or value in page
        choices = [str(one) for one in getattr(parameter, "choices", ())]
        assert all(any(choice in word for word in page) for choice in choices)
    told = " ".join(page)
    assert "(default" not in told
    assert "<bool>" not in told
    assert "…" not in told.replace("dit-s2 … dit-xl8", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_essentials_come_first(name: str) -> None:
    command, page = LOADED[name], shown(name, "--help")
    assert 0 < len(command.first) <= 10
    names = {parameter.name: parameter for parameter in command.params}
    flags = [max(names[one].opts, key=len) for one in command.first]
    found = [word.rstrip(",") for word in words_of(page) if word.startswith("--")]
    assert [flag for flag in found if flag in flags][: len(flags)] or not flags
    assert all(flag in found for flag in flags)
    hidden = [max(one.opts, key=len) for one in command.params if one.name not in command.first]
    assert not [flag for flag in hidden if flag.startswith("--") and f"│ {flag} " in page]
    assert f"dmp {name} --help-all" in " ".join(words_of(page)) or not hidden
    assert len(page.splitlines()) < 60


@pytest.mark.parametrize("name", COMMANDS)
def test_there_are_two_examples_that_can_be_typed(name: str) -> None:
    command = LOADED[name]
    assert len(command.examples) == 2
    for example in command.examples:
        dmp, called, *words = shlex.split(example)
        assert (dmp, called) == ("dmp", name)
        assert example in shown(name, "--help")
        command.make_context(name, words)  # raises for an option that there is not


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says(name: str) -> None:
    first = (LOADED[name].help or "").split("\n\n")[0]
    assert COMMANDS[name].summary == first
    listed = " ".join(words_of(shown("--help")))
    assert " ".join(first.split()) in listed


def test_dmp_alone_shows_the_road() -> None:
    lines = [line.split()[:2] for line in shown().splitlines() if line.startswith("  dmp") and "--" in line]
    assert lines[:4] == [["dmp", name] for name in ("patch", "train", "sample", "eval")]
    assert "Missing" not in shown()
    assert RUNNER.invoke(app, ["no-such-command"]).exit_code == 2


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_list_of_commands_loads_none() -> None:
    ask = "import sys\nfrom typer.testing import CliRunner\nfrom dmp_cli.cli import app\n{}\n"
    ask += "assert not [name for name in sys.modules if name.startswith(('dmp_cli.config', 'dmp_cli.commands.train'))]"
    run_python(ask.format("CliRunner().invoke(app, ['--help'])\nCliRunner().invoke(app, [])"), PYTHONPATH=ROOT)


ROOT = str(Path(__file__).parents[2])


def completed(*typed: str, folder: Path) -> list[str]:
    """What a shell is offered for the last of the words."""
    code = "import sys; sys.argv = ['dmp']; from dmp_cli.cli import main; main()"
    asked = {"_DMP_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["dmp", *typed]), "COMP_CWORD": str(len(typed))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env={"PYTHONPATH": ROOT, **asked}
    )
    return done.stdout.split()


@pytest.mark.slow
def test_a_shell_completes_values(tmp_path: Path) -> None:
    (tmp_path / "runs" / "ffhq").mkdir(parents=True)
    for file in ("config.json", "log.jsonl"):
        (tmp_path / "runs" / "ffhq" / file).touch()
    assert completed("ins", folder=tmp_path) == ["inspect-gates"]
    assert completed("train", "--preset", "paper-f", folder=tmp_path) == ["paper-ffhq-b2", "paper-ffhq-l2"]
    assert completed("sample", "--backbone", "dit-x", folder=tmp_path) == ["dit-xl2", "dit-xl4", "dit-xl8"]
    assert completed("sample", "--sampler", "dp", folder=tmp_path) == ["dpm++"]
    assert completed("eval", "--features", "in", folder=tmp_path) == ["inception"]
    assert completed("ablate", "table", folder=tmp_path) == ["table2", "table3", "table4"]
    assert completed("train", "--resume", "-o", "r", folder=tmp_path) == ["runs/ffhq"]
    assert completed("train", "--data", "r", folder=tmp_path) == []  # the shell offers files then


def test_what_is_completed_is_what_there_is() -> None:
    assert {*completing.BACKBONES} - {"digits"} >= {*_KNOWN}
    assert all(is_size_name(name) for name in completing.BACKBONES if name != "digits")
    assert completing.TABLES == TABLES
    told: Any = {parameter.name: parameter.help for parameter in LOADED["eval"].params}
    assert all(name in told["features"] for name in completing.FEATURES)
    assert isinstance(LOADED["train"], HelpedCommand)
    assert isinstance(app, typer.Typer)
