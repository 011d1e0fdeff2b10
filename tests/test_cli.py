"""What holds for every command: quick help, exit codes, completions that are true."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import dmp_cli
from dmp_cli.cli import app

COMMANDS = ["patch", "train", "sample", "eval", "inspect-gates", "demo"]
HEAVY = ["torch", "diffusers", "numpy", "PIL", "scipy", "matplotlib", "safetensors"]
ROOT = Path(__file__).parent.parent
EVERYWHERE = ["--device", "--dtype", "--seed", "--config", "--dry-run", "--json", "--verbose", "--quiet"]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from dmp_cli.cli import app\n"
        f"for name in {['', *COMMANDS]}:\n"
        "    result = CliRunner().invoke(app, [name, '--help'] if name else ['--help'])\n"
        "    assert result.exit_code == 0, result.stderr\n"
        f"assert not [name for name in {HEAVY} if name in sys.modules]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_what_stands_everywhere(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help-all"], env={"COLUMNS": "200"}).stdout
    for option in EVERYWHERE:
        assert option in shown


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"dmp {dmp_cli.__version__}\n"


def test_public_names_load() -> None:
    for name in dmp_cli.__all__:
        assert getattr(dmp_cli, name) is not None
    with pytest.raises(AttributeError):
        _ = dmp_cli.no_such_name


def test_a_bad_option_of_a_file_keeps_its_brackets() -> None:
    result = CliRunner().invoke(app, ["patch", "--info", "[/data].safetensors"])
    assert result.exit_code == 1
    assert "[/data].safetensors" in result.stderr


def test_tracebacks_only_when_asked_for() -> None:
    assert "Traceback" not in CliRunner().invoke(app, ["patch", "--info", "none"]).stderr
    assert "Traceback" in CliRunner().invoke(app, ["patch", "--info", "none", "-v"]).stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SIGTERM", "stopped by SIGTERM; what is written"),
        ("SIGHUP", "stopped by SIGHUP; what is written"),
        ("SIGINT", "stopped by Ctrl-C; what is written"),
    ],
)
def test_a_signal_ends_with_its_code(name: str, message: str) -> None:
    code = (
        "import os, signal, sys, dmp_cli.cli; import dmp_cli.commands.patch.command as command\n"
        f"command.print_info = lambda *given: os.kill(os.getpid(), signal.{name})\n"
        "sys.argv = ['dmp', 'patch', '--info', 'x']; from dmp_cli.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 128 + getattr(signal, name)
    assert done.stderr.startswith(message)


# What is interrupted: a library while it is imported, which may make another error of it; and dmp itself.
IMPORTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            try:
                os.kill(os.getpid(), signal.{signal})
            except KeyboardInterrupt as end:
                if {wraps}:
                    raise ImportError("a broken library") from end
                raise
sys.meta_path.insert(0, Finder())
sys.argv = ["dmp", "patch", "--backbone", "digits"]
import runpy; runpy.run_module("dmp_cli", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("name", "number", "wraps"),
    [
        ("torch", "SIGINT", False),
        ("torch", "SIGTERM", True),
        ("torch.nn", "SIGINT", True),
        ("typer", "SIGINT", False),
        ("dmp_cli.commands.patch", "SIGTERM", False),
    ],
)
def test_a_signal_during_an_import_ends_in_one_sentence(name: str, number: str, wraps: bool) -> None:
    code = IMPORTED.format(name=name, signal=number, wraps=wraps)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 128 + getattr(signal, number), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"stopped by {'Ctrl-C' if number == 'SIGINT' else number}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("shell", "name"), [("bash", "dmp.bash"), ("zsh", "dmp.zsh"), ("fish", "dmp.fish")])
def test_completions_are_those_of_this_version(shell: str, name: str) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "dmp_cli"],
        env={**os.environ, "_DMP_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == (ROOT / "completions" / name).read_text().strip()


def test_bash_completes_options(tmp_path: Path) -> None:
    script = tmp_path / "dmp"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dmp_cli "$@"\n')
    script.chmod(0o755)
    code = (
        f'source "{ROOT / "completions" / "dmp.bash"}"; COMP_WORDS=(dmp train --back); COMP_CWORD=2; '
        "_dmp_completion dmp; echo ${COMPREPLY[@]}"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["--backbone"], done.stderr
