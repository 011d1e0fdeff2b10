"""The latent store of a training run: where it is, and having it filled before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import StoppedError
from ._console import Printer

if TYPE_CHECKING:
    import torch

    from ..config import TrainConfig
    from ..imagesource import ImageSource
    from ..latentstore import LatentStore
    from ..methods import Trainee
    from ..signals import StopRequest


def prepare_store(
    images: ImageSource,
    trainee: Trainee,
    config: TrainConfig,
    device: torch.device,
    printer: Printer,
    request: StopRequest,
) -> LatentStore | None:
    """A complete latent store for this run; None where it trains without one."""
    from ..encoding import default_folder, describe, fill, pays
    from ..latentstore import LatentStore

    codec, backbone = trainee.codec, trainee.backbone
    wanted = config.latent_store
    if wanted is None:
        wanted = config.store_dir is not None or pays(images, codec, backbone)
    if not wanted:
        return None
    record = describe(images, codec, backbone, flip=config.flip)
    store = LatentStore(config.store_dir or default_folder(record), record)
    store.claim()
    total = record.count * record.row_bytes / 1e9
    missing = store.missing()
    if not missing:
        printer.note(f"latents of {record.count:,} images from {store.path}, {total:.2f} GB")
        return store
    printer.note(f"encoding {record.count:,} images into {store.path}, {total:.2f} GB, once for all runs")

    def stop() -> None:
        if request.number is not None:
            raise StoppedError(
                "stopped while encoding; what is encoded is kept, and the same command goes on",
                signal_number=request.number,
            )

    codec.to(device)
    with printer.progress("encode", record.count, done=store.held()) as advance:
        for done in fill(store, images=images, codec=codec, device=device, max_bad=config.max_bad, stop=stop):
            advance(done, "")
    return store
