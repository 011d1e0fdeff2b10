"""The errors a user can cause. Each says what is wrong and where, and, in ``hint``, how to mend it.

Messages name files, captions and tensors, whose names may come from anybody. A terminal obeys what some characters say:
colours, another title, a line that is drawn over. So they are shown as what they are, such as ``\\u001b``.

They are written in the words of the command line, which prints :meth:`DMPError.told`. ``str(error)``, which a traceback
shows, says the same in the words of Python: ``image_size=16`` for ``--image-size 16``.
"""

from __future__ import annotations

import re
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


# What stands behind an option and is its value, not the next word of the sentence.
_WORDS = (
    "none|linear|attention|constant|prepend|add|lora|both|prompts|hard|soft|tokens|zero|random|distinct|uniform|"
    "conditioning|timestep|fp32|bf16|fp16|int8|nf4|meta|diffusers|cosine|scaled_linear|vp|epsilon|v_prediction|sample|"
    "velocity|sit|repa|rectified|dmp|prompt-tuning|dora|bitfit|difffit|full|scratch|inception|pixels|clip|dinov2|"
    "digits|pipeline|ddpm|ddim|euler-a|euler|heun|unipc|sde-euler|ode-euler|ode-heun|flow-euler|flow-heun|cpu|cuda"
)
_VALUE = rf"'[^']*'|-?\d[\w.,]*(?<![.,])|(?:{_WORDS})(?![\w+/-])|dpm\+\+|[a-z]+-[a-z]+\d\b|[A-Z]{{2,}}\b"
_OPTION = re.compile(rf"(?<![\w/.-])(?:--(?P<name>[a-z][a-z0-9-]*)|-(?P<letter>[on])\b)(?: (?P<value>{_VALUE}))?")
_LETTERS = {"o": "output", "n": "num-images"}
_FLAGS = {"resume", "force", "download", "grey", "follow-links", "tensorboard", "balanced"}
_IN_PYTHON = {  # where the argument is not called as the option is
    "patch": "load_patch(path)",
    "backbone": "load_backbone(name)",
    "adapter": "load_adapted(path, ...)",
    "force-backbone": "attach(..., force=True)",
    "prompt": "prompts",
    "num-images": "n",
    "d": "Prompt(seed=...)",
    "l": "Prompt(guidance=...)",
    "n": "Prompt(negative=...)",
}


def in_python(text: str) -> str:
    """A message of the command line in the words of Python: arguments for options."""
    return re.sub(r"\b(\w+) (?:and|or) \1\b", r"\1", _OPTION.sub(_as_argument, text))


def _as_argument(found: re.Match[str]) -> str:
    name, value = found["name"] or _LETTERS[found["letter"]], found["value"]
    behind = "" if value is None else f" {value}"
    if (call := re.fullmatch(r"(\w+)\((path|name)(.*)\)", _IN_PYTHON.get(name, ""))) and value is not None:
        return f"{call[1]}({value!r}{call[3]})"
    if value == "FILE" and name == "prompts":
        return "prompts=[TEXT, ...]"
    if "(" in _IN_PYTHON.get(name, ""):
        return _IN_PYTHON[name] + behind
    argument = _IN_PYTHON.get(name, name).replace("-", "_")
    if name.startswith("no-"):
        return f"{argument.removeprefix('no_')}=False{behind}"
    if name in _FLAGS:
        return f"{argument}=True{behind}"
    if value is None:
        return argument if found["letter"] is None else f"{argument}=..."
    return f"{argument}={value}" if re.match(r"['\d-]", value) or value.isupper() else f"{argument}={value!r}"


class DMPError(Exception):
    """Base of everything a user can cause; the command line turns it into one message and exit code 1."""

    exit_code = 1
    silent = False  # whether somebody else says it: another process of the same run

    def __init__(self, message: str, *, hint: str | None = None, details: Sequence[str] = ()) -> None:
        """``message`` and ``hint`` are a line each; ``details`` are further lines of the message."""
        self.message = "\n".join(map(one_line, (message, *details)))
        self.hint = None if hint is None else one_line(hint)
        super().__init__(self.message)

    def told(self) -> str:
        """The message, and the hint on a line of its own, in the words of the command line."""
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"

    def __str__(self) -> str:
        return in_python(self.told())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class ConfigError(DMPError):
    """Options that contradict each other or cannot be carried out here."""


class OptionError(ConfigError, ValueError):
    """A value that a config such as ``PatchConfig`` refuses."""


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
