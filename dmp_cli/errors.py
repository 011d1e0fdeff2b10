"""The errors a user can cause. Each says what is wrong and where, and, in ``hint``, how to mend it."""

from __future__ import annotations


class DMPError(Exception):
    """Base of everything a user can cause; the command line turns it into one message and exit code 1."""

    exit_code = 1
    silent = False  # whether somebody else says it: another process of the same run

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"


class ConfigError(DMPError):
    """Options that contradict each other or cannot be carried out here."""


class CheckpointError(DMPError):
    """A weight file that is damaged, unsafe, of an unknown family or does not fit."""


class PatchError(DMPError):
    """A patch file that is damaged, or a patch that does not fit its backbone."""


class DataError(DMPError):
    """Images that are missing, unreadable or too few."""


class MetricError(DMPError):
    """A score that cannot be computed from what was given."""


class DivergedError(DMPError):
    """Training met a loss or gradient that is not finite."""


class StoppedError(DMPError):
    """A signal asked for the end; what could be saved has been saved. Exit code 128 + signal number."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class EndedAtOnce(KeyboardInterrupt):
    """A signal ends the program where it stands. Exit code 128 + signal number.

    It is no ``Exception``, as Ctrl-C's own error is none: else code that takes every error of a library for a damaged
    file would take this one for it too, and go on.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.message, self.exit_code = message, 128 + signal_number
        self.silent = False  # whether another process of the same run says it
