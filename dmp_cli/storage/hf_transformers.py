"""Models of transformers from folders, quietly and without the network; this is its only importer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError


@contextlib.contextmanager
def transformers_for(what: str) -> Iterator[Any]:
    """The library, its progress bars off, which would be drawn over ours.

    Raises:
        ConfigError: it is not installed, and ``what`` needs it.
    """
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(f"{what} transformers", hint="pip install 'dmp-cli[text]'") from error
    drawn = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        if drawn:
            transformers.utils.logging.enable_progress_bar()


def reason_of(error: Exception) -> str:
    """The first line of what transformers says of damage: OSError, ValueError, KeyError, SafetensorError, ..."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
