"""The errors a user can cause. Each says what is wrong and where, and, in ``hint``, how to mend it.

Messages name files, captions and tensors, whose names may come from anybody. A terminal obeys what some characters say:
colours, another title, a line that is drawn over. So they are shown as what they are, such as ``\\u001b``.
"""

from __future__ import annotations

from collections.abc import Sequence

_BREAKS = "\n\t"
_CONTROLS = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))}  # C0, DEL and C1
_LINES = {"\u2028", "\u2029"}  # some terminals and editors begin a new line
_DIRECTIONS = {chr(code) for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_ESCAPED = {ord(letter): f"\\u{ord(letter):04x}" for letter in _CONTROLS | _LINES | _DIRECTIONS}
_ESCAPED |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
_ESCAPED_IN_TEXT = {code: escape for code, escape in _ESCAPED.items() if chr(code) not in _BREAKS}


def visible(text: str) -> str:
    """A text of several lines whose control characters and marks of direction are escaped, but for \\n and \\t."""
    return text.translate(_ESCAPED_IN_TEXT)


def one_line(text: str) -> str:
    """The same of a text of one line: line ends are escaped too, so that no name pretends to be another line."""
    return text.translate(_ESCAPED)


class DMPError(Exception):
    """Base of everything a user can cause; the command line turns it into one message and exit code 1."""

    exit_code = 1
    silent = False  # whether somebody else says it: another process of the same run

    def __init__(self, message: str, *, hint: str | None = None, details: Sequence[str] = ()) -> None:
        """``message`` and ``hint`` are a line each; ``details`` are further lines of the message."""
        self.message = "\n".join(map(one_line, (message, *details)))
        self.hint = None if hint is None else one_line(hint)
        super().__init__(self.message)

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
