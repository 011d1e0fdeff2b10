"""The file given to ``--prompts``: one prompt per line, with options at its end as kohya's trainers write them.

``a red fox --d 42 --l 7.5 --n blurry`` has the seed 42, the guidance 7.5 and the negative prompt "blurry", which
guidance leads away from. Empty lines and lines that start with ``#`` are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..config import MAX_IMAGES, Prompt
from ..errors import ConfigError
from ..storage import read_lines
from .packed_records import keep

_FIELDS = {"d": "seed", "l": "guidance", "n": "negative"}
# Other options that kohya's files may have, and what to do instead.
_REFUSED = {
    "w": "Give --image-size instead.",
    "h": "Give --image-size instead.",
    "s": "Give --steps instead.",
}
_OPTION = re.compile(r"\s--(?=[a-zA-Z])")


def read_prompts(path: Path) -> Sequence[Prompt]:
    """The prompts of a file, in the order of its lines; many of them are packed.

    Raises:
        ConfigError: the file cannot be read or holds no prompt, or an option is unknown or out of range.
    """
    lines = read_lines(Path(path), name=f"--prompts {path}", regular=False)
    rows = ((number, line.strip()) for number, line in lines)
    prompts = (_parse(line, place=f"{path}, line {number}") for number, line in rows if line and line[0] != "#")
    found = keep(Prompt, islice(prompts, MAX_IMAGES + 1))
    if len(found) > MAX_IMAGES:
        raise ConfigError(f"--prompts {path} has more than {MAX_IMAGES:,} prompts")
    if not found:
        raise ConfigError(f"--prompts {path} holds no prompt", hint="Write one prompt per line.")
    return found


def _parse(line: str, *, place: str) -> Prompt:
    text, *options = _OPTION.split(f" {line}")
    fields: dict[str, Any] = {"text": text.strip()}
    for option in options:
        key, _, value = option.partition(" ")
        if key in _REFUSED:
            raise ConfigError(f"{place}: --{key} cannot be set for one prompt", hint=_REFUSED[key])
        if key not in _FIELDS:
            known = "--d SEED, --l GUIDANCE and --n NEGATIVE"
            raise ConfigError(f"{place}: --{key} is unknown", hint=f"A line may end with {known}.")
        if _FIELDS[key] in fields:
            raise ConfigError(f"{place}: --{key} is given twice")
        fields[_FIELDS[key]] = value.strip() or (None if key == "n" else "")
    if not fields["text"]:
        raise ConfigError(f"{place} has options but no text")
    try:
        return Prompt(**fields)
    except ValidationError as error:
        problem = error.errors()[0]
        key = next(key for key, field in _FIELDS.items() if field == problem["loc"][0])
        raise ConfigError(f"{place}: --{key} {problem['input']!r}: {problem['msg']}") from error
