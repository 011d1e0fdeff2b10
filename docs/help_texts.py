"""The help of every command at 80 columns, in one file, so that a change of its words can be read as a diff.

python docs/help_texts.py             write ``docs/help.txt`` anew
python docs/help_texts.py --check     fail where it is not current
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent / "help.txt"


def help_texts() -> str:
    """The help of ``dmp``, and of each command its essential options and all of them."""
    os.environ |= {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1"}
    from typer.testing import CliRunner

    from dmp_cli.cli import app
    from dmp_cli.commands import COMMANDS

    calls = [["--help"], *([name, flag] for name in COMMANDS for flag in ("--help", "--help-all"))]
    texts = []
    for words in calls:
        lines = CliRunner().invoke(app, words, prog_name="dmp").stdout.strip().splitlines()
        texts.append("\n".join([f"# dmp {' '.join(words)}", "", *(line.rstrip() for line in lines), ""]))
    return "\n\n".join(texts)


if __name__ == "__main__":
    current = help_texts()
    if "--check" in sys.argv[1:]:
        sys.exit(PAGE.read_text(encoding="utf-8") != current and f"{PAGE.name} is not current: run {sys.argv[0]}")
    PAGE.write_text(current, encoding="utf-8")
