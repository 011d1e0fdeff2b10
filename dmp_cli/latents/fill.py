"""Filling a latent store: any number of processes decode, crop and encode every image once; see ``store``."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

from ..backbones import Backbone
from ..config import MAX_PIXELS, sides_of
from ..data import CROP, ImageSource, LiveReader, check_bad, fits_in_memory
from ..errors import ConfigError, DMPError
from ..storage import home_folder
from .codec import Codec
from .encoding import Encoder, try_read
from .renewal import renew_changed
from .sizes import image_size
from .store import LatentStore, StoreRecord, earlier_rows_per_file, read_store_record, rows_per_file

_WAIT = 0.2  # seconds between two checks of the files that other processes are making


def pays_off(images: ImageSource, codec: Codec, backbone: Backbone) -> bool:
    """Whether a store saves work: always with a VAE; in pixel space if the images do not all fit in memory."""
    size = image_size(codec, backbone)
    return codec.record.kind != "pixel" or not fits_in_memory(images, image_size=size, channels=codec.image_channels)


def describe_store(
    images: ImageSource,
    codec: Codec,
    backbone: Backbone,
    *,
    flip: bool,
    size: int | str | None = None,
    members: str | None = None,
) -> StoreRecord:
    """The record of the store that keeps these images for this codec; ``flip``: with their mirror images.

    ``size``: in pixels, where it is not that of ``backbone``; ``members``: the digest of a bucket.
    """
    size, pixel = size or image_size(codec, backbone), codec.record.kind == "pixel"
    channels, sides = codec.image_channels, [side // codec.factor for side in sides_of(size)]
    values = channels if pixel else backbone.sample_shape[0] * (2 if codec.has_posterior else 1)
    shape = (1 if pixel or not flip else 2, values, *sides)  # mirroring pixels on reading is cheap and exact
    dtype = "uint8" if pixel else "float32"
    return StoreRecord(
        codec=codec.record.kind,
        codec_digest=codec.record.digest,
        image_size=size,
        channels=channels,
        crop=CROP,
        data=images.path.name,
        fingerprint=images.fingerprint,
        count=len(images),
        shape=shape,
        dtype=dtype,
        rows=rows_per_file(shape, dtype, count=len(images)),
        members=members,
    )


def default_store_folder(record: StoreRecord) -> Path:
    """``$DMP_HOME/latents/DATA-KEY``: one folder for each state of a data set, codec and image size."""
    return home_folder() / "latents" / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', record.data)}-{record.key[:12]}"


def place_store(record: StoreRecord, folder: Path | None) -> LatentStore:
    """The store of a record in ``folder``, or where such a store is by default.

    A store that an earlier version has begun keeps its number of images in a file.
    """
    earlier = earlier_rows_per_file(record.shape, record.dtype, count=record.count)
    for one in (record, record.model_copy(update={"rows": earlier})):
        place = folder or default_store_folder(one)
        try:
            there = read_store_record(place / "manifest.json") if (place / "manifest.json").exists() else None
        except ConfigError:  # the store's own check says what it is
            continue
        if there is not None and there.key == one.key:
            return LatentStore(place, one)
    return LatentStore(folder or default_store_folder(record), record)


def outdated_stores(record: StoreRecord) -> list[Path]:
    """Default folders with stores of the same data set, codec and size that were made before the data changed."""
    found = []
    for manifest in sorted((home_folder() / "latents").glob("*/manifest.json")):
        try:
            other = read_store_record(manifest)
        except ConfigError:
            continue
        changed = {"fingerprint": record.fingerprint, "count": record.count, "rows": record.rows}
        if other != record and other.model_copy(update=changed) == record:
            found.append(manifest.parent)
    return found


def encode_missing(
    store: LatentStore,
    *,
    images: ImageSource,
    codec: Codec,
    device: torch.device,
    max_bad: int,
    max_pixels: int = MAX_PIXELS,
    stop: Callable[[], None] = lambda: None,
    warn: Callable[[str], None] = lambda remark: None,
) -> Iterator[int]:
    """Make the missing files of the store, and encode changed images again.

    Yields the number of images done after each chunk of this process.

    Any number of processes may fill one store at once: each file is made by one of them, and another process takes over
    the file of a killed one. The iteration ends when the store is complete. ``stop`` is called between two chunks; it
    may raise an error to end the work. ``warn`` gets what Pillow warned of, once for each image.

    Raises:
        DMPError: the disk has no room for the store.
        DataError: more than ``max_bad`` images are unreadable.
    """
    size, channels = store.record.image_size, store.record.channels
    reader = LiveReader(images, image_size=size, channels=channels, keeps=False, sums=True, max_pixels=max_pixels)
    encoder = Encoder(reader, images, codec, device)
    _drop_repaired(store, reader)
    check_room(store)
    renew_changed(store, encoder, stop=stop, warn=warn)
    while missing := store.missing():
        idle = True
        for number in missing:
            stop()
            try:
                with FileLock(store.locks / f"{number:05d}", timeout=0):
                    idle = False
                    if not store.is_there(number):
                        done = store.held()
                        for count in encoder.make(store, number, stop=stop):
                            for remark in reader.take_remarks():
                                warn(remark)
                            yield done + count
            except Timeout:
                continue  # another process is making it
        if idle:  # other processes are making all that is missing: wait until one has finished or died
            time.sleep(_WAIT)
    check_bad(list(store.problems().values()), images, max_bad=max_bad)


def _drop_repaired(store: LatentStore, reader: LiveReader) -> None:
    """Remove files with an image that was unreadable when they were made and is readable now; they are made again."""
    for number in set(range(store.record.num_files)) - set(store.missing()):
        if any(isinstance(try_read(reader, index), np.ndarray) for index in store.problems_of(number)):
            store.drop(number)


def check_room(store: LatentStore) -> None:
    """Raise DMPError when the disk has no room for the missing files of the store."""
    record = store.record
    needed = sum(len(record.span(number)) for number in store.missing()) * record.row_bytes
    free = shutil.disk_usage(store.path).free
    if needed > free:
        raise DMPError(
            f"the latent store in {store.path} needs {needed / 1e9:.2f} GB more, and the disk has {free / 1e9:.2f} GB",
            hint="Give a folder on a larger disk with --store-dir, or encode live with --no-latent-store.",
        )
