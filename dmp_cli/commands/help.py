"""How ``--help`` is laid out: the essential options of a command first, the rest in groups with ``--help-all``.

No name and no value is ever cut: a name that is too long for its column gets a line of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

_LEFT = 25  # columns of names
_MOST = 100  # columns of a page; longer lines are hard to read
ALL = "dmp.help_all"  # in ctx.meta: whether all options are wanted


class HelpedCommand(TyperCommand):
    """A command whose help shows its essential options, or all with ``--help-all``."""

    first: tuple[str, ...] = ()  # names of the essential parameters, in order
    examples: tuple[str, ...] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(command_page(self, ctx, everything=ctx.meta.get(ALL, False)))


def show_all(ctx: typer.Context, wanted: bool) -> None:
    """The callback of ``--help-all``."""
    if wanted and not ctx.resilient_parsing:
        ctx.meta[ALL] = True
        print(ctx.get_help())
        raise typer.Exit()


def command_page(command: HelpedCommand, ctx: Any, *, everything: bool) -> str:
    """The help of one command."""
    groups = _groups(command, ctx)
    essentials = groups.pop("Essentials")
    count = len(essentials) + sum(map(len, groups.values()))
    page = _Page()
    page.usage(ctx, command)
    page.text(command.help or "")
    page.examples(command.examples)
    page.options("Options" if everything or count == len(essentials) else "Essentials", essentials)
    if everything:
        for title, group in groups.items():
            page.options(title, group)
    elif groups:
        named = ", ".join(name for name in groups if name != "More")
        page.text(f"All {count} options ({named}): {ctx.command_path} --help-all")
    return page.shown()


def group_page(group: Any, ctx: Any, listed: Sequence[tuple[str, str]]) -> str:
    """The help of ``dmp`` itself, with its commands and the first sentence of each."""
    page = _Page()
    page.usage(ctx, group)
    page.text(group.help or "")
    page.rows("Commands", [(name, "", summary) for name, summary in listed], left=16)
    page.options("Options", [one for one in group.get_params(ctx) if not one.hidden])
    return page.shown()


def _groups(command: HelpedCommand, ctx: Any) -> dict[str, list[Any]]:
    """The parameters of a command by the titles of their groups, the essential ones first."""
    parameters = {one.name: one for one in command.get_params(ctx) if not getattr(one, "hidden", False)}
    arguments = [name for name, one in parameters.items() if one.param_type_name == "argument"]
    first = [*arguments, *(name for name in command.first if name in parameters)]
    groups: dict[str, list[Any]] = {"Essentials": [parameters.pop(name) for name in first], "More": []}
    for one in parameters.values():
        title = getattr(one, "rich_help_panel", None) or ("Everywhere" if one.name.startswith("help") else "More")
        groups.setdefault(title, []).append(one)
    last = groups.pop("Everywhere", [])
    groups |= {"Everywhere": last} if last else {}
    return {title: found for title, found in groups.items() if found or title == "Essentials"}


class _Page:
    """Text and boxes of a page as wide as the terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False, soft_wrap=False)
        self.console.width = self.width = max(40, min(self.console.width, _MOST))
        self.parts: list[Any] = []

    def shown(self) -> str:
        """All of it, as it is written to this terminal."""
        with self.console.capture() as captured:
            self.console.print(*self.parts, sep="\n")
        return captured.get()

    def usage(self, ctx: Any, command: Any) -> None:
        from rich.text import Text

        words = " ".join(command.collect_usage_pieces(ctx))
        self.parts.append(
            Text.assemble("\n", ("Usage: ", "bold yellow"), (f"{ctx.command_path} {words}", "bold"), "\n")
        )

    def text(self, text: str) -> None:
        from rich.padding import Padding
        from rich.text import Text

        for paragraph in text.strip().split("\n\n"):
            if paragraph:
                self.parts.append(Padding(Text(" ".join(paragraph.split())), (0, 1, 1, 1)))

    def examples(self, examples: Sequence[str]) -> None:
        from rich.text import Text

        if examples:
            self._box("Examples", [Text(example, style="green", overflow="fold") for example in examples])

    def options(self, title: str, parameters: Sequence[Any]) -> None:
        if parameters:
            self.rows(title, [(*_label(one), _about(one)) for one in parameters])

    def rows(self, title: str, rows: Sequence[tuple[str, str, str]], *, left: int = _LEFT) -> None:
        """A box of names, their values, and what each is about."""
        self._box(title, [line for row in rows for line in self._row(*row, left=left)])

    def _row(self, names: str, value: str, about: str, *, left: int) -> Iterator[Any]:
        from rich.text import Text

        label = Text.assemble((names, "bold cyan"), (f" {value}" if value else "", "yellow"))
        before, mark, after = about.partition("[default: ")
        right = Text.assemble(before, (mark + after, "dim"))
        wrapped = right.wrap(self.console, max(20, self.width - 4 - left))
        if len(label) >= left:
            yield label
            label = Text()
        for line in wrapped:
            label.pad_right(left - len(label))
            line.rstrip()
            yield label + line
            label = Text()
        if not wrapped and len(label):
            yield label

    def _box(self, title: str, lines: Sequence[Any]) -> None:
        from rich.console import Group
        from rich.panel import Panel

        self.parts.append(Panel(Group(*lines), title=title, title_align="left", border_style="dim", width=self.width))


def _label(parameter: Any) -> tuple[str, str]:
    """The names of a parameter, and the name of its value."""
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.human_readable_name, ""
    names = sorted(parameter.opts, key=len, reverse=True)
    told = ", ".join(names) + "".join(f"/{name}" for name in parameter.secondary_opts)
    return told, "" if parameter.is_flag else parameter.metavar or ""


def _about(parameter: Any) -> str:
    """What a parameter does, and its default."""
    text = " ".join((parameter.help or "").split())
    default = getattr(parameter, "show_default", None)
    return f"{text} [default: {default}]" if isinstance(default, str) else text
