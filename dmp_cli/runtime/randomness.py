"""Random numbers as a pure function of what they are used for, so that no random state is ever saved.

Every number comes from the counter-based generator Philox (Salmon et al. 2011): its key is a hash of (purpose, seed),
its counter holds (step, index). So image 7 at step 3 gets the same noise in any process, whatever was drawn before.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def generator(purpose: str, *, seed: int, step: int = 0, index: int = 0) -> np.random.Generator:
    """The numpy generator of (purpose, seed, step, index)."""
    # Philox counts up in the first of the four words of its counter; the last two are free for step and index.
    counter = np.array([0, 0, step, index], np.uint64)
    return np.random.Generator(np.random.Philox(key=_key(purpose, seed), counter=counter))


@functools.lru_cache(maxsize=256)
def _key(purpose: str, seed: int) -> np.ndarray:
    digest = hashlib.blake2b(f"{purpose}:{seed}".encode(), digest_size=16).digest()
    return np.frombuffer(digest, np.uint64)


def normal(purpose: str, shape: Sequence[int], *, seed: int, indices: Sequence[int], step: int = 0) -> Tensor:
    """Standard normal float32 noise, (len(indices), *shape); row k belongs to ``indices[k]`` alone."""
    rows = np.empty((len(indices), *shape), np.float32)
    for row, index in zip(rows, indices, strict=True):
        generator(purpose, seed=seed, step=step, index=index).standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(rows)


def normal_rows(purpose: str, shape: Sequence[int], *, seed: int, step: int = 0) -> Tensor:
    """Standard normal float32 noise of ``shape``, in one draw; row k does not depend on the number of rows."""
    return torch.from_numpy(generator(purpose, seed=seed, step=step).standard_normal(shape, np.float32))


def uniform(purpose: str, *, seed: int, indices: Sequence[int], step: int = 0) -> Tensor:
    """Uniform float64 in [0, 1), (len(indices),): the numbers at ``indices`` of one stream, drawn up to the largest."""
    drawn = generator(purpose, seed=seed, step=step).random(max(indices) + 1)
    return torch.from_numpy(drawn[np.asarray(indices)])


def integers(purpose: str, high: int, *, seed: int, indices: Sequence[int], step: int = 0) -> Tensor:
    """Uniform int64 in [0, high), (len(indices),), for ``high`` far below 2^53."""
    return (uniform(purpose, seed=seed, indices=indices, step=step) * high).long()


def permutation(purpose: str, count: int, *, seed: int, step: int = 0) -> np.ndarray:
    """A random permutation of range(count), (count,) int64."""
    return generator(purpose, seed=seed, step=step).permutation(count)


def torch_generator(purpose: str, *, seed: int, step: int = 0, index: int = 0) -> torch.Generator:
    """A CPU generator of torch, for code that draws with torch alone, such as ``nn.init`` or diffusers' schedulers."""
    key = hashlib.blake2b(f"{purpose}:{seed}:{step}:{index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)
