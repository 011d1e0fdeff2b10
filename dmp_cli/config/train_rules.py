"""Options of a training run that do not go together: one sentence for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .buckets import bucket_option
from .levels import foreign_option

if TYPE_CHECKING:
    from .train import TrainConfig


_FEWEST_DRAWS = 20  # two in each band, of which an error can be estimated


def find_problems(config: TrainConfig) -> Iterator[str]:
    """What is wrong with ``config`` as a whole, each in one sentence that names the options."""
    if config.gate_noise and config.method != "dmp":
        yield f"--gate-noise is noise on a gate's logits, and --method {config.method} has no gate"
    if config.val_data is not None and config.val_split:
        yield "--val-data and --val-split: give one of both"
    if config.val_draws < _FEWEST_DRAWS:
        yield f"--val-draws {config.val_draws} are too few for 10 bands of timesteps: give {_FEWEST_DRAWS} or more"
    if config.levels is not None and (problem := foreign_option(config, config.levels)) is not None:
        yield problem
    if (given := bucket_option(config)) is not None:
        yield f"{given} is for images of several shapes: give --buckets too"
    if config.random_crop and (config.latent_store or config.store_dir is not None):
        asked = "--latent-store" if config.latent_store else "--store-dir"
        yield f"--random-crop cuts each image anew, and a latent store keeps one cut of it: leave out {asked}"
    if config.bucket_min is not None and config.bucket_max is not None and config.bucket_min > config.bucket_max:
        yield f"--bucket-min {config.bucket_min} is above --bucket-max {config.bucket_max}"
    if config.snr_gamma is not None and config.loss_weight != "min-snr":
        yield "--snr-gamma is for --loss-weight min-snr"
    for name in ("keep_best", "patience", "val_part", "val_losses"):
        if getattr(config, name) and not config.holds_out:
            yield f"--{name.replace('_', '-')} needs held-out images: give --val-data or --val-split"
    if config.shard_backbone and config.method not in ("dmp", "prompt-tuning"):
        yield f"--shard-backbone is for a frozen backbone, and --method {config.method} changes it"
    if config.quantize is not None:
        if config.method in ("full", "scratch", "bitfit", "difffit"):
            yield f"--quantize {config.quantize} is for frozen weights, and --method {config.method} learns them"
        for name in ("compile", "shard_backbone"):
            if getattr(config, name):
                yield f"--quantize and --{name.replace('_', '-')} do not go together"
    if config.offload_blocks:
        if config.method in ("full", "scratch", "bitfit", "difffit"):
            yield f"--offload-blocks is for frozen weights, and --method {config.method} learns them"
        for name in ("compile", "shard_backbone"):
            if getattr(config, name):
                yield f"--offload-blocks and --{name.replace('_', '-')} do not go together"
    if config.auto_micro_batch and config.shard_backbone:
        yield (
            "--auto-micro-batch and --shard-backbone: spread weights need all processes to compute the same "
            "micro-batches, and one that runs out of memory cannot tell the others"
        )
    if config.micro_batch_size is not None and config.batch_size % config.micro_batch_size:
        yield f"--micro-batch-size {config.micro_batch_size} does not divide --batch-size {config.batch_size}"
