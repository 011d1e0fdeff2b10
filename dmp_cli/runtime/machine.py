"""What this machine has: its memory, against which the sizes that files declare are held."""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


@functools.cache
def memory_bytes() -> int | None:
    """The memory that this process may use at most: the machine's, or its container's. None: it cannot be told."""
    known = []
    with contextlib.suppress(AttributeError, OSError, ValueError):  # AttributeError: Windows
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for name in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
            known.append(int(Path(name).read_text()))
    return min((size for size in known if size > 0), default=None)
