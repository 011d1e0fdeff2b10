"""How many threads compute on a CPU: for a while in this process, and the same in a process that it starts.

Sums are taken in another order with another number of threads, so that results differ in their last digits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def threads_limited(count: int | None) -> Iterator[None]:
    """Context in which torch and the linear algebra of numpy use ``count`` threads; None: as many as before."""
    if count is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(limits=count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def thread_environment() -> dict[str, str]:
    """The variables that give a new process as many threads as this one has now."""
    from threadpoolctl import threadpool_info

    own = torch.get_num_threads()
    algebra = [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]
    return {
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(own)),
        "OPENBLAS_NUM_THREADS": str(max(algebra, default=own)),
    }
