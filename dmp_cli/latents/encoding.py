"""From image files to the rows of a latent store, chunk by chunk.

b images in a chunk, F flips, K values for each position of the (H, W) latent grid; see ``store``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from ..data import ImageSource, LiveReader, as_floats
from ..errors import DataError
from .codec import Codec
from .sources import source_row, write_sources
from .store import LatentStore, StoreRecord

_CHUNK = 8  # images that are encoded together; always the same ones, so that the bytes do not depend on the process
_READERS = 4  # threads that decode image files


class Encoder:
    """Makes the files of a store from images."""

    def __init__(self, reader: LiveReader, images: ImageSource, codec: Codec, device: torch.device) -> None:
        self.images, self._reader, self._codec, self._device = images, reader, codec, device

    def make(self, store: LatentStore, number: int, *, stop: Callable[[], None]) -> Iterator[int]:
        """Write file ``number``. Yields after each chunk how many of its images are done."""
        span = store.record.span(number)
        rows = np.zeros((len(span), *store.record.shape), store.record.dtype)
        problems: dict[int, str] = {}
        sources = np.zeros((len(span), 3), np.int64)
        yield from self._fill(span, rows, problems, sources, store.record, stop, only=None)
        write_sources(store, number, sources)  # first: rows without it would be taken for those of an earlier version
        store.write(number, rows, problems)

    def renew(
        self, store: LatentStore, number: int, changed: Collection[int], sources: np.ndarray, stop: Callable[[], None]
    ) -> None:
        """Write file ``number`` again, with new rows for the images ``changed``; all other rows stay as they are.

        ``sources`` (k, 3) are those of the file's images as they are now.
        """
        span = store.record.span(number)
        rows, before = store.content(number)
        problems = {index: message for index, message in before.items() if index not in changed}
        for _ in self._fill(span, rows, problems, sources, store.record, stop, only=changed):
            pass
        store.write(number, rows, problems)
        write_sources(store, number, sources)  # last: a kill before it makes the changed rows once more

    def _fill(
        self,
        span: range,
        rows: np.ndarray,
        problems: dict[int, str],
        sources: np.ndarray,
        record: StoreRecord,
        stop: Callable[[], None],
        *,
        only: Collection[int] | None,
    ) -> Iterator[int]:
        """Fill in the rows of the images ``only`` (None: all), and what is known of their files."""
        for part, pixels in _decoded(self._reader, span, only):
            stop()
            wanted = [index for index in part if only is None or index in only]
            good = [index for index, found in zip(part, pixels, strict=True) if isinstance(found, np.ndarray)]
            said = {i: found for i, found in zip(part, pixels, strict=True) if isinstance(found, str)}
            problems |= {index: message for index, message in said.items() if index in wanted}
            if good:
                stacked = np.stack([found for found in pixels if isinstance(found, np.ndarray)])  # (b, C, H, W)
                measured = _measure(stacked, record, self._codec, self._device)
                for index, row in zip(good, measured, strict=True):
                    if index in wanted:
                        rows[index - span.start] = row
            for index in wanted:
                if index in said:
                    rows[index - span.start] = 0
                sources[index - span.start] = source_row(self.images.stamp(index), self._reader.take_sum(index))
            yield part[-1] + 1 - span.start


def try_read(reader: LiveReader, index: int) -> np.ndarray | str:
    """The pixels (C, H, W) of an image, or a message that says why it cannot be read."""
    try:
        return reader.read(index, mirrored=False)
    except DataError as error:
        return error.message


def _measure(pixels: np.ndarray, record: StoreRecord, codec: Codec, device: torch.device) -> np.ndarray:
    """What the store keeps of uint8 pixels (b, C, H, W): (b, F, K, H, W), the images and their mirror images."""
    if record.codec == "pixel":
        return pixels[:, None]
    images = as_floats(torch.from_numpy(pixels).to(device))
    views = [images, images.flip(-1)][: record.shape[0]]
    return torch.stack([codec.measure(view) for view in views], dim=1).cpu().numpy()


def _decoded(
    reader: LiveReader, span: range, only: Collection[int] | None
) -> Iterator[tuple[Sequence[int], list[np.ndarray | str]]]:
    """Chunks of consecutive images, decoded ahead in threads: their indices, and for each pixels or a message.

    Chunks without an image of ``only`` are passed over.
    """
    chunks = [span[start : start + _CHUNK] for start in range(0, len(span), _CHUNK)]
    with ThreadPoolExecutor(_READERS) as readers:
        ahead: deque[tuple[range, list[Future[np.ndarray | str]]]] = deque()
        for chunk in chunks:
            if only is None or any(index in only for index in chunk):
                ahead.append((chunk, [readers.submit(try_read, reader, index) for index in chunk]))
            if len(ahead) > 2:
                part, pixels = ahead.popleft()
                yield part, [found.result() for found in pixels]
        for part, pixels in ahead:
            yield part, [found.result() for found in pixels]
