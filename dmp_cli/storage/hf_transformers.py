"""The transformers library, imported here only: without progress bars, and with a clear error where it is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError


@contextlib.contextmanager
def transformers_for(what: str) -> Iterator[Any]:
    """Context that gives the library, with its progress bars off: they would be drawn over ours.

    Raises:
        ConfigError: it is not installed; ``what`` is the beginning of the message, such as "text encoders need".
    """
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(f"{what} transformers", hint="pip install 'dmp-cli[text]'") from error
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


@contextlib.contextmanager
def without_warnings(*others: Any) -> Iterator[None]:
    """Context in which transformers warns of nothing, nor do ``others``: modules for logging that are like its own."""
    import transformers

    levels = [(own, own.get_verbosity()) for own in (transformers.utils.logging, *others)]
    try:
        for own, _ in levels:
            own.set_verbosity_error()
        yield
    finally:
        for own, level in levels:
            own.set_verbosity(level)


def reason_of(error: BaseException) -> str:
    """The first line of an error that transformers raises for a damaged file, or the error's type if it has no text."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
