"""Writing a folder of samples: each image and its latent whole, then their sums, in a thread behind the sampler."""

from __future__ import annotations

import contextlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ..data import LATENT, image_name
from ..storage import write_many
from .image_names import ImageNames
from .sums import SampleSums

Arrays = Mapping[int, np.ndarray]  # images, uint8 (H, W, C), or latents, float32 (C', H/f, W/f), by index
Write = Callable[..., None]  # images, and latents where there are any
_BEHIND = 2  # chunks that may wait to be written


class FolderWriter:
    """Writes chunks of images, and their latents where there are any.

    Files that are there with a ``known`` checksum stay; one that a kill left without a checksum is rewritten. ``name``
    is the file of checksums. ``pack`` is called with the indices of each chunk that is written.
    """

    def __init__(
        self,
        path: Path,
        sums: SampleSums,
        name: str,
        *,
        known: ImageNames,
        pack: Callable[[Iterable[int]], None] = lambda indices: None,
    ) -> None:
        self._path, self._sums, self._name, self._known, self._pack = path, sums, name, known, pack

    def write(self, images: Arrays, latents: Arrays) -> None:
        """Write what is not there yet, and then its checksums."""
        new = {name: encode_png(images[i]) for i in images if (name := image_name(i)) not in self._known}
        new |= {name: encode_latent(latents[i]) for i in latents if (name := image_name(i, LATENT)) not in self._known}
        write_many(self._path, new)
        if new:
            self._sums.append(self._name, new)

    @contextlib.contextmanager
    def ahead(self) -> Iterator[Write]:
        """Context that yields ``write``, which does its work in a thread; at most two chunks wait for it.

        An error in the thread is raised by a later call of ``write``, or when the context is left. After the context
        everything is on the disk.
        """

        def store(images: Arrays, latents: Arrays) -> None:
            self.write(images, latents)
            self._pack(images)

        with ThreadPoolExecutor(1) as pool:
            pending: deque[Future[None]] = deque()

            def write(images: Arrays, latents: Arrays | None = None) -> None:
                pending.append(pool.submit(store, dict(images), dict(latents or {})))
                while len(pending) > _BEHIND:
                    pending.popleft().result()

            yield write
            for written in pending:
                written.result()


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of uint8 (H, W, 3) or (H, W, 1)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(buffer, format="PNG")
    return buffer.getvalue()


def encode_latent(values: np.ndarray) -> bytes:
    """The .npy file of one latent, little-endian float32 (C', H/f, W/f): exactly what was decoded to the image."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(values, "<f4"), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()
