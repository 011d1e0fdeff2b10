"""The commands by name, and the first sentence of each. None is imported before it is asked for.

Their options are many: building those of all commands takes longer than what is usually asked of ``dmp --help`` or of a
completion.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import typer

from .help import HelpedCommand


class Entry(NamedTuple):
    """Where a command is, and what it does."""

    module: str  # below dmp_cli.commands
    function: str
    summary: str  # the first paragraph of its docstring

    def load(self, name: str) -> HelpedCommand:
        """The command with its options."""
        module = importlib.import_module(f".{self.module}", __package__)
        function: Any = getattr(module, self.function)
        app = typer.Typer(add_completion=False)
        app.command(name, cls=HelpedCommand)(function)
        command = typer.main.get_command(app)
        assert isinstance(command, HelpedCommand)
        command.first, command.examples = function.first, function.examples
        return command

    def listed(self, name: str) -> HelpedCommand:
        """The command without its options, to be shown in a list."""
        return HelpedCommand(name, help=self.summary)


COMMANDS = {
    "patch": Entry(
        "patch", "patch", "Make a zero patch, which changes nothing until it is trained, and print how large it is."
    ),
    "train": Entry(
        "train", "train", "Train a patch for a converged backbone, on the images the backbone was trained on."
    ),
    "sample": Entry(
        "sample",
        "sample",
        "Draw images from a patched or bare backbone. The same seed gives the same images, whatever the number.",
    ),
    "eval": Entry(
        "evaluate",
        "evaluate",
        "Score folders of samples against real images: FID and other metrics, each with its spread.",
    ),
    "improve": Entry(
        "improve",
        "improve",
        "Make a backbone better by sampling it against a version that has learnt from the backbone's own samples.",
    ),
    "inspect-gates": Entry(
        "inspect_gates",
        "inspect_gates",
        "Draw and measure the gate of a patch: which prompts it uses at which timestep, block by block.",
    ),
    "convert": Entry(
        "convert",
        "convert",
        "Write a DiT as a .pt with Meta's names, or as a folder that diffusers loads. Its weights stay as they are.",
    ),
    "ablate": Entry(
        "ablate",
        "ablate",
        "Train every arm over several seeds, sample all from the same noise, score them, and write one table.",
    ),
    "tune": Entry(
        "tune",
        "tune",
        "Search good options for a training, then measure the winner again on seeds and images that no trial saw.",
    ),
    "push": Entry("push", "push", "Push a patch to the hub, with a card made from what is known of it, in one commit."),
    "runs": Entry(
        "runs",
        "runs",
        "List the runs, patches, samples and scores below a folder: what, when, how far, and who works there now.",
    ),
    "env": Entry("env", "env", "Print what a report of a fault needs: versions, devices, memory and folders."),
    "demo": Entry(
        "demo",
        "demo",
        "Try to improve a small converged model on real digits four ways, score them, and write a page to look at.",
    ),
}
