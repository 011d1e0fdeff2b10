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
    """The help of ``dmp`` and of each command, as plain text: without the boxes that a terminal gets."""
    os.environ |= {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1"}
    import typer

    from dmp_cli.cli import app

    mode, app.rich_markup_mode = app.rich_markup_mode, None
    try:
        root = typer.main.get_command(app)
    finally:
        app.rich_markup_mode = mode
    texts = [_help(root, "dmp", None)]
    context = typer.Context(root, info_name="dmp", max_content_width=80, terminal_width=80)
    texts += [_help(command, name, context) for name, command in root.commands.items()]
    return "\n\n".join(texts)


def _help(command: object, name: str, parent: object) -> str:
    import typer

    context = typer.Context(command, info_name=name, parent=parent, max_content_width=80, terminal_width=80)
    text = command.get_help(context)
    title = f"# {context.command_path} --help"
    return "\n".join([title, "", *(line.rstrip() for line in text.splitlines()), ""])


if __name__ == "__main__":
    current = help_texts()
    if "--check" in sys.argv[1:]:
        sys.exit(PAGE.read_text(encoding="utf-8") != current and f"{PAGE.name} is not current: run {sys.argv[0]}")
    PAGE.write_text(current, encoding="utf-8")
