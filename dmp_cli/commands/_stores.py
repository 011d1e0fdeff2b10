"""The latent store of a training run: where it is, and having it filled before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import DataError, StoppedError
from ._console import Printer

if TYPE_CHECKING:
    import torch

    from ..config import TrainConfig
    from ..imagesource import ImageSource
    from ..latentstore import LatentStore
    from ..methods import Trainee
    from ..signals import StopRequest


def find_store(images: ImageSource, trainee: Trainee, config: TrainConfig) -> LatentStore | None:
    """The latent store of this run, perhaps not made yet; None where it trains without one.

    Raises:
        ConfigError: --store-dir is something else.
    """
    from ..encoding import default_folder, describe, pays
    from ..latentstore import LatentStore

    codec, backbone = trainee.codec, trainee.backbone
    wanted = config.latent_store
    if wanted is None:
        wanted = config.store_dir is not None or pays(images, codec, backbone)
    if not wanted:
        return None
    record = describe(images, codec, backbone, flip=config.flip)
    store = LatentStore(config.store_dir or default_folder(record), record)
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
    from ..data import Damaged
    from ..encoding import fill, outdated

    store.claim()
    record = store.record
    size = f"{record.count:,} images, {record.count * record.row_bytes / 1e9:.2f} GB"
    if store.missing():
        for other in outdated(record) if config.store_dir is None else []:
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
            for done in fill(store, images=images, codec=codec, device=device, max_bad=max_bad, stop=stop):
                advance(done, "")
        except Damaged as error:  # while it is being made: another process, or a failing disk
            raise DataError(str(error), hint="Go on with --resume: what is damaged is made anew.") from error
