"""What a training and a set of samples write, in bytes, from their options alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..config import TrainConfig

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..latents import Codec

_MOMENTS = 2  # of AdamW, for each number that is learnt
_BESIDE = 300  # bytes of an image's lines in plan.jsonl and SHA256SUMS, and of a PNG's own
_IN_TAR = 1024  # bytes of its header, and up to the next block


class WrittenByRun(NamedTuple):
    """Bytes of a run's folder; headers, the log and pages are not counted."""

    checkpoints: int  # that stay
    spare: int  # a new checkpoint is whole before the oldest goes
    learnt: int


def written_by_run(config: TrainConfig, *, learnt: int) -> WrittenByRun:
    """What a run of ``config`` writes that has ``learnt`` parameters."""
    state = 4 * learnt * (1 + _MOMENTS + bool(config.ema))
    kept = min(config.keep, max(1, config.steps // config.save_every))
    return WrittenByRun(state * kept, state, 4 * learnt * (1 + bool(config.ema)))


def pixels_of(backbone: Backbone, codec: Codec) -> int:
    """Bytes of the pixels of an image."""
    from ..config import sides_of
    from ..latents import image_size

    sides = sides_of(image_size(codec, backbone))
    return sides.height * sides.width * codec.image_channels


def written_by_images(count: int, *, pixels: int, tar: bool) -> int:
    """What so many images take at most, of so many bytes of pixels each: a PNG takes less than its pixels."""
    return count * (pixels + _BESIDE + (_IN_TAR if tar else 0))
