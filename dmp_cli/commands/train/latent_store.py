"""The latent store of a training run: where it is, and having it filled before the first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError, DMPError, StoppedError
from ..console import Printer

if TYPE_CHECKING:
    import torch

    from ...config import TrainConfig
    from ...data import ImageSource
    from ...latents import KeptLatents, LatentStore, StoreRecord
    from ...runtime import StopRequest
    from ...training import Trainee


def find_kept_latents(images: ImageSource, trainee: Trainee, config: TrainConfig) -> tuple[KeptLatents | None, str]:
    """The latents that ``dmp sample`` kept beside ``images``, for a run that can use them; and a sentence on them.

    Only what a continued run cannot change decides: the data, the codec, flips and --latent-store.
    """
    from ...latents import find_kept

    if config.buckets:
        return None, ""
    kept, remark = find_kept(images, trainee.codec, trainee.backbone, flip=config.flip)
    if kept is not None and config.latent_store is not None:
        asked = "--latent-store" if config.latent_store else "--no-latent-store"
        return None, f"the latents kept in {images.path} are not used, and images are encoded, as {asked} says"
    return kept, remark


def find_store(images: ImageSource, trainee: Trainee, config: TrainConfig) -> LatentStore | None:
    """The latent store of this run, which may still be empty; None for a run that encodes its images at every step.

    Raises:
        ConfigError: the folder of --store-dir holds other files.
        DMPError: latents are missing, and its folder cannot be written; or there is none, as the user has no home.
    """
    from ...latents import describe_store

    if config.buckets or not wants_store(images, trainee, config):
        return None
    return as_store(describe_store(images, trainee.codec, trainee.backbone, flip=config.flip), config.store_dir)


def wants_store(images: ImageSource, trainee: Trainee, config: TrainConfig) -> bool:
    """Whether latents are kept: as asked for, or where it saves work."""
    from ...latents import pays_off

    if config.random_crop:  # a store keeps one cut of each image
        return False
    if config.latent_store is not None:
        return config.latent_store
    return config.store_dir is not None or pays_off(images, trainee.codec, trainee.backbone)


def as_store(record: StoreRecord, folder: Path | None) -> LatentStore:
    """The store of a record in ``folder``, or where such a store is by default. Raises as :func:`find_store`."""
    from ...latents import place_store
    from ...storage import can_write

    store = place_store(record, folder)
    store.check()
    if not can_write(store.path) and store.missing():
        raise _unwritable(store, "this user may not, or the disk is read-only")
    return store


def _unwritable(store: LatentStore, reason: str) -> DMPError:
    return DMPError(
        f"the latent store in {store.path} cannot be written: {reason}",
        hint="Name a folder with --store-dir, set DMP_HOME to one, or encode live with --no-latent-store.",
    )


def fill_store(
    store: LatentStore,
    images: ImageSource,
    trainee: Trainee,
    config: TrainConfig,
    device: torch.device,
    printer: Printer,
    request: StopRequest,
) -> None:
    """Encode what the store lacks."""
    from ...data import Damaged
    from ...latents import encode_missing, outdated_stores

    try:
        store.claim()
    except OSError as error:  # of a lock
        raise _unwritable(store, error.strerror or str(error)) from error
    record = store.record
    size = f"{record.count:,} images, {record.count * record.row_bytes / 1e9:.2f} GB"
    if store.missing():
        for other in outdated_stores(record) if config.store_dir is None else []:
            printer.note(f"the data have changed since {other} was made; it can be removed")
        printer.note(f"encoding {size}, into {store.path}, once for all runs")
    else:
        printer.note(f"latent store {store.path}: {size}")

    stop = _stop_between_chunks(request, record)
    trainee.codec.to(device)
    encoding = encode_missing(
        store,
        images=images,
        codec=trainee.codec,
        device=device,
        max_bad=config.max_bad,
        max_pixels=config.max_pixels,
        stop=stop,
        warn=printer.warn,
    )
    with printer.progress("encode", record.count, done=store.held()) as advance:
        try:
            for done in encoding:
                advance(done, "")
            stop()  # asked for during the last images: nothing is begun that was not foretold
        except Damaged as error:  # while it is being made: another process, or a failing disk
            raise DataError(str(error), hint="Continue with --resume: damaged files are made again.") from error


def _stop_between_chunks(request: StopRequest, record: StoreRecord) -> Callable[[], None]:
    """What to call between two chunks: it raises StoppedError once the user has asked for the end."""
    from ...runtime import Foresight

    # Of the file that is being made, nothing is kept.
    kept = f"what is encoded is kept, except at most the last {min(record.rows, record.count):,} images"
    request.foretell(lambda: Foresight(f"ending after the images at hand; {kept}", "end at once"))

    def stop() -> None:
        if request.number is not None:
            raise StoppedError(f"stopped while encoding; {kept}; continue with --resume", signal_number=request.number)

    return stop
