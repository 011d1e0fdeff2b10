"""The latent store of a training run: where it is, and having it filled before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import DataError, StoppedError
from ..console import Printer

if TYPE_CHECKING:
    import torch

    from ...config import TrainConfig
    from ...data import ImageSource
    from ...latents import LatentStore
    from ...runtime import StopRequest
    from ...training import Trainee


def find_store(images: ImageSource, trainee: Trainee, config: TrainConfig) -> LatentStore | None:
    """The latent store of this run, which may still be empty; None for a run that encodes its images at every step.

    Raises:
        ConfigError: the folder of --store-dir holds other files.
    """
    from ...latents import LatentStore, default_store_folder, describe_store, pays_off

    codec, backbone = trainee.codec, trainee.backbone
    wanted = config.latent_store
    if wanted is None:
        wanted = config.store_dir is not None or pays_off(images, codec, backbone)
    if not wanted:
        return None
    record = describe_store(images, codec, backbone, flip=config.flip)
    store = LatentStore(config.store_dir or default_store_folder(record), record)
    store.check()
    return store


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

    store.claim()
    record = store.record
    size = f"{record.count:,} images, {record.count * record.row_bytes / 1e9:.2f} GB"
    if store.missing():
        for other in outdated_stores(record) if config.store_dir is None else []:
            printer.note(f"the data have changed since {other} was made; it can be removed")
        printer.note(f"encoding {size}, into {store.path}, once for all runs")
    else:
        printer.note(f"latent store {store.path}: {size}")

    def stop() -> None:
        if request.number is not None:
            raise StoppedError(
                "stopped while encoding; what is encoded is kept, continue with --resume",
                signal_number=request.number,
            )

    trainee.codec.to(device)
    codec, max_bad = trainee.codec, config.max_bad
    with printer.progress("encode", record.count, done=store.held()) as advance:
        try:
            for done in encode_missing(store, images=images, codec=codec, device=device, max_bad=max_bad, stop=stop):
                advance(done, "")
        except Damaged as error:  # while it is being made: another process, or a failing disk
            raise DataError(str(error), hint="Continue with --resume: damaged files are made again.") from error
