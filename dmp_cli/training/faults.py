"""What is said when a device fails in the middle of a run: what is lost, and how to go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..errors import DMPError
from ..runtime import describe_fault
from .checkpoint import list_states
from .run_folder import RunFolder


@contextlib.contextmanager
def naming_checkpoint(run: RunFolder) -> Iterator[None]:
    """Context that raises DMPError where a device fails or memory runs out; it names the checkpoint to continue from.

    Nothing is saved then: what a device that failed gives back may be anything.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        told = describe_fault(error)
        if told is None:
            raise
        states = list_states(run.checkpoints)
        last = (
            f"Continue from {states[-1]} with --resume" if states else "There is no checkpoint yet: begin with --resume"
        )
        raise DMPError(told, hint=f"{last}, once the device works again.") from error
