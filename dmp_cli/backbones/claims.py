"""What a config or a header claims of a backbone's sizes, checked before anything is built from it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from ..errors import CheckpointError, DMPError

_LARGEST = 1 << 24  # of any size: more than any model has
_MOST_LAYERS = 1000
_LAYERS = re.compile(r"depth|.*layers(_per_block)?|.*num_layers.*")
_TABLE = 1 << 26  # values in a table of positions, side² * width: 256 MB in float32, and more while it is made
_SIDES, _WIDTHS = ("input_size", "sample_size"), ("hidden_size", "attention_head_dim")
_ODD = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError, NameError)


def check_sizes(sizes: dict[str, Any], *, source: object) -> None:
    """Raise CheckpointError, which names it, for a size that no model has: building it would take hours or all memory.

    ``sizes`` is a config of diffusers, or the sizes in a file's own header.
    """
    for key, value in sizes.items():
        limit = _MOST_LAYERS if _LAYERS.fullmatch(key) else _LARGEST
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(number, (int, float)) and not abs(number) <= limit:
                raise CheckpointError(f"{source}: {key} {number!r:.30} is more than any model has, {limit:,}")
    side, patch, width = (_size(sizes, *names) for names in (_SIDES, ("patch_size",), _WIDTHS))
    if (side // max(1, patch)) ** 2 * width > _TABLE:
        raise CheckpointError(f"{source}: sides of {side} and a width of {width} make a table that no model has")


def _size(sizes: dict[str, Any], *names: str) -> int:
    value = next((sizes[name] for name in names if name in sizes), 1)
    return value if isinstance(value, int) else 1


@contextlib.contextmanager
def building(source: object) -> Iterator[None]:
    """Context in which a model is built by a config of a file: where that is nonsense, libraries raise anything.

    Raises:
        CheckpointError: instead of what they raise.
    """
    try:
        yield
    except DMPError:
        raise
    except _ODD as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise CheckpointError(
            f"{source} describes no model that can be built: {reason[:200]}",
            hint="Its config is damaged, or of another version; give the whole folder as it was written.",
        ) from error
