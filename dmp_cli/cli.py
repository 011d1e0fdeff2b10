"""The ``dmp`` command: registers the commands and turns every DMPError into one message and its exit code."""

from __future__ import annotations

import signal
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .commands import COMMANDS, group_page
from .errors import DMPError, one_line
from .runtime import (
    complain,
    end_on_signals,
    end_silently_on_signals,
    ended_by,
    let_go_of_closed,
    name_of,
    show_controls,
    spell_characters,
)
from .version import __version__


class _Group(TyperGroup):
    """The commands, each loaded when it is asked for; errors a user can cause end without a traceback."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = entry.load(cmd_name)
        return self.commands[cmd_name]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(group_page(self, ctx, [(name, entry.summary) for name, entry in COMMANDS.items()]))

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        loaded, self.get_command = self.get_command, self._listed  # type: ignore[method-assign]
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self.get_command = loaded  # type: ignore[method-assign]

    def _listed(self, ctx: Any, cmd_name: str) -> Any:
        return COMMANDS[cmd_name].listed(cmd_name) if cmd_name in COMMANDS else None

    def main(self, *arguments: Any, **options: Any) -> Any:
        spell_characters()
        show_controls()
        return super().main(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        end_on_signals()
        try:
            return super().invoke(ctx)
        except DMPError as error:
            if ctx.meta.get("dmp.verbose"):
                complain(traceback.format_exc().rstrip())
            if error.silent:
                raise typer.Exit(error.exit_code) from None
            message, *rest = error.told().splitlines()
            complain("\n".join([f"error: {message}", *(f"  {line}" for line in rest)]))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt as ended:
            raise _stopped(ended) from None
        except Exception as error:
            if isinstance(error, typer.Exit):  # a command inside this one has said it
                raise
            if ended_by() is not None:  # a library's own error, of a signal that it met
                raise _stopped(error) from None
            told = _fault(error)
            if told is None:
                raise
            if ctx.meta.get("dmp.verbose"):
                complain(traceback.format_exc().rstrip())
            complain(f"error: {told}")
            raise typer.Exit(DMPError.exit_code) from None


def _fault(error: Exception) -> str | None:
    """What happened to the machine or the device, in one sentence; None for an error of our own."""
    if isinstance(error, MemoryError):
        return "this machine has too little memory for that; give smaller images, batches or numbers"
    if isinstance(error, OSError) and error.errno is not None:
        place = "" if error.filename is None else f"{one_line(str(error.filename))}: "
        return f"{place}{error.strerror or error}"
    if "torch" not in sys.modules:
        return None
    from .runtime import describe_fault

    return describe_fault(error)


def _stopped(error: BaseException) -> typer.Exit:
    """Say in one sentence that a signal ended the command; the exit to take."""
    number = ended_by() or signal.SIGINT
    if not getattr(error, "silent", False):
        told = getattr(error, "message", f"stopped by {name_of(number)}")
        complain(f"{told}; what is written is whole, and the same command goes on from it")
    return typer.Exit(128 + number)


app = typer.Typer(
    name="dmp",
    cls=_Group,
    invoke_without_command=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Patch a frozen diffusion model with a mixture of prompts: train the patch, sample, score, look at its gates.",
)

_ROAD = """
  dmp patch   --backbone dit-l2                            how large a patch is
  dmp train   --backbone dit-l2 --data ffhq/ -o run        learn it
  dmp sample  --patch run/patch.safetensors -n 1000        draw images with it
  dmp eval    --samples samples/patch --reference ffhq/    score them

  dmp demo tells the whole story in three minutes; dmp --help lists all.
"""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dmp {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        print(_ROAD)


def main() -> None:
    """Entry point of the ``dmp`` script."""
    try:
        app(prog_name="dmp")
    except SystemExit as end:
        end_silently_on_signals()
        let_go_of_closed()
        if f"{__package__}.runtime.distributed" in sys.modules:
            from .runtime import leave

            leave(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
