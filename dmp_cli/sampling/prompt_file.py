"""The file of ``--prompts``: one prompt a line, options at its end as kohya's trainers write them.

``a red fox --d 42 --l 7.5`` has the seed 42 and the guidance 7.5; empty lines and those that start with ``#``
say nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..config import Prompt
from ..errors import ConfigError

_FIELDS = {"d": "seed", "l": "guidance"}
# What kohya's files may also hold, and what says it here.
_ELSEWHERE = {"w": "--image-size", "h": "--image-size", "s": "--steps", "n": "nothing: negative prompts are not known"}
_OPTION = re.compile(r"\s--(?=[a-zA-Z])")


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file, in its order.

    Raises:
        ConfigError: it cannot be read or holds none, or a line has an option that is not known or out of range.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read --prompts {path}: {reason}") from error
    rows = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    found = tuple(_parse(line, place=f"{path}, line {number}") for number, line in rows if line and line[0] != "#")
    if not found:
        raise ConfigError(f"--prompts {path} holds no prompt", hint="Write one a line.")
    return found


def _parse(line: str, *, place: str) -> Prompt:
    text, *options = _OPTION.split(f" {line}")
    fields: dict[str, Any] = {"text": text.strip()}
    for option in options:
        key, _, value = option.partition(" ")
        if key in _ELSEWHERE:
            raise ConfigError(f"{place}: --{key} is said once for all images", hint=f"Instead: {_ELSEWHERE[key]}.")
        if key not in _FIELDS:
            known = "--d SEED and --l GUIDANCE"
            raise ConfigError(f"{place}: --{key} is not known", hint=f"A line may end with {known}.")
        if _FIELDS[key] in fields:
            raise ConfigError(f"{place}: --{key} is given twice")
        fields[_FIELDS[key]] = value.strip()
    if not fields["text"]:
        raise ConfigError(f"{place} has options and no text")
    try:
        return Prompt(**fields)
    except ValidationError as error:
        problem = error.errors()[0]
        key = next(key for key, field in _FIELDS.items() if field == problem["loc"][0])
        raise ConfigError(f"{place}: --{key} {problem['input']!r}: {problem['msg']}") from error
