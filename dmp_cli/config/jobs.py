"""Options of commands that run others: how many of them at once, and where."""

from __future__ import annotations

from typing import ClassVar

from .base import Options, option


class JobOptions(Options):
    """How many commands run at once."""

    panel: ClassVar[str | None] = "Several at once"

    jobs: int | None = option(
        "How many commands run at once, each a process of its own, on the visible GPUs in turn. What they write is the "
        "same.",
        shown="1; all that can, with --cluster",
        ge=1,
        le=1024,
    )
    cluster: str | None = option(
        "Run every command as a job of a cluster, through submitit: slurm, local, or a TOML file of its parameters.",
        metavar="slurm|local|FILE",
    )


class ThreadOptions(Options):
    """Threads of every command, which a folder keeps."""

    panel: ClassVar[str | None] = "Several at once"

    threads: int | None = option(
        "Threads of every command on a CPU, whatever --jobs is. The folder keeps them, as they move the last digits.",
        shown="1 for digits, else as many as the machine has",
        ge=1,
        le=1024,
    )
