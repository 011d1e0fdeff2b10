"""Filling a text store: any number of processes encode every caption once; see ``store``."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from torch import Tensor

from ..backbones import Encoders
from ..errors import DMPError
from ..storage import home_folder
from .store import TextStore, TextStoreRecord
from .store_file import DTYPES

_FILE_BYTES = 64 << 20  # about the size of a file, and the work that a process loses when it is killed
_MOST = 256  # captions of a file
_LOOKED_AT = 256  # captions whose tokens are counted, to foretell the size of a store
_WAIT = 0.2  # seconds between two checks of the files that other processes are making


def describe_texts(
    encoders: Encoders, *, dtype: Literal["bf16", "fp16", "fp32"], reads_mask: bool = False
) -> TextStoreRecord:
    """The record of the store that keeps what these encoders give, in this precision.

    ``reads_mask``: whether the backbone reads no token that the encoders' mask leaves out.
    """
    record = encoders.record
    return TextStoreRecord(
        kind=record.kind,
        encoders=record.digest,
        tokenizers=encoders.digest_tokenizers(),
        length=encoders.asked_length,
        version=encoders.version,
        masked=encoders.is_masked and reads_mask,
        dtype=dtype,
        source=Path(record.source).name,
    )


def default_text_folder(record: TextStoreRecord) -> Path:
    """``$DMP_HOME/texts/PIPELINE-KEY``: one folder for all captions of the same encoders."""
    return home_folder() / "texts" / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', record.source)}-{record.key[:12]}"


def encode_missing(
    store: TextStore,
    captions: Iterable[str],
    encoders: Encoders,
    *,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Encode what the store lacks of ``captions`` and of the empty one. Yields how many are done after each caption.

    Any number of processes may fill one store at once: the captions of a file are encoded by one of them, and another
    process takes over those of a killed one. The iteration ends when all are there. ``stop`` is called between two
    captions; it may raise an error to end the work.

    Raises:
        DMPError: the disk has no room for them.
        DataError: a value is too large for the store's precision.
    """
    wanted = list(dict.fromkeys(("", *captions)))
    store.refresh()
    if not store.missing(wanted):
        return
    example = row_of(encoders, "")
    check_room(store, store.missing(wanted), encoders, example)
    count = max(1, min(_MOST, _FILE_BYTES // row_bytes(example, store.record.dtype)))
    while missing := store.missing(wanted):
        idle = True
        # What is missing after some files were made, has the same files as before: all but the last are full.
        for group in (missing[start : start + count] for start in range(0, len(missing), count)):
            stop()
            try:
                with FileLock(store.locks / store.name_for(group), timeout=0):
                    store.refresh()
                    todo = store.missing(group)
                    if todo == group:
                        idle = False
                        yield from _make(store, group, encoders, len(wanted) - len(store.missing(wanted)), stop)
            except Timeout:
                continue  # another process is making it
        store.refresh()
        if idle:  # other processes are making all that is missing: wait until one has finished or died
            time.sleep(_WAIT)


def _make(
    store: TextStore, group: Sequence[str], encoders: Encoders, done: int, stop: Callable[[], None]
) -> Iterator[int]:
    """Write the file of these captions."""
    rows = []
    for number, caption in enumerate(group, start=1):
        stop()
        rows.append(row_of(encoders, caption))
        yield done + number
    store.write(group, rows)
    store.refresh()


def row_of(encoders: Encoders, caption: str) -> dict[str, Tensor]:
    """What the encoders give of one caption, in the CPU's memory."""
    return {name: value[0].cpu() for name, value in encoders.encode([caption]).items()}


def row_bytes(row: dict[str, Tensor], dtype: str) -> int:
    """The bytes of a caption whose padding is kept."""
    width = DTYPES[dtype].itemsize
    return sum(value.numel() * (width if value.is_floating_point() else 1) for value in row.values())


def foretell_bytes(
    captions: Sequence[str], encoders: Encoders, example: dict[str, Tensor], record: TextStoreRecord
) -> int:
    """About how many bytes ``captions`` take in a store; ``example`` is what the encoders give of one caption."""
    whole = row_bytes(example, record.dtype)
    if not record.masked:
        return len(captions) * whole
    looked_at = captions[:: max(1, len(captions) // _LOOKED_AT)]
    counted = encoders.count_tokens(looked_at)
    return int(len(captions) * whole * sum(counted) / (len(counted) * encoders.length))


def check_room(store: TextStore, missing: Sequence[str], encoders: Encoders, example: dict[str, Tensor]) -> None:
    """Raise DMPError when the disk has no room for these captions."""
    needed = foretell_bytes(missing, encoders, example, store.record)
    free = shutil.disk_usage(store.path).free
    if needed > free:
        raise DMPError(
            f"the text store in {store.path} needs {needed / 1e9:.2f} GB more for {len(missing):,} captions, and the "
            f"disk has {free / 1e9:.2f} GB",
            hint="Give a folder on a larger disk with --text-store-dir, or encode while training with --no-text-store.",
        )
