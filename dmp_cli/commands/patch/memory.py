"""``dmp patch --memory``: how much memory training a patch and sampling need, by precision and number of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import CommonOptions, MemoryOptions, NetworkOptions, PatchConfig, TrainConfig, build, sides_of
from ..console import Printer

if TYPE_CHECKING:
    from ...backbones import Backbone
    from ...training import Need, Trainee

_GIB = 1 << 30
_PRECISIONS: dict[str, dict[str, Any]] = {  # as options of dmp train
    "fp32": {},
    "bf16": {"dtype": "bf16"},
    "int8": {"dtype": "bf16", "quantize": "int8"},
    "nf4": {"dtype": "bf16", "quantize": "nf4"},
    "offloaded": {"dtype": "bf16", "offload_blocks": True},
}
_COLUMNS = ["precision", "images", "frozen weights", "training", "recomputed", "sampling"]
_NOTES = (
    "recomputed: with --gradient-checkpointing. training: the patch, its gradients and AdamW are in it.",
    "sampling: one denoising step; where there is a null condition it is guided, which takes two rows an image.",
    "int8 and nf4: with --dtype bf16 and --quantize. offloaded: with --dtype bf16 and --offload-blocks.",
    "Not counted: the VAE, the text encoders, and what the device's own libraries take; --ema takes the patch once "
    "more. With bf16 the original weights stay in main memory, and loading takes as much as fp32's weights.",
)


def print_memory(
    asked: MemoryOptions,
    config: PatchConfig,
    network: NetworkOptions,
    common: CommonOptions,
    printer: Printer,
) -> None:
    """Print the table of GiB, or give it as JSON in bytes.

    Raises:
        ConfigError: no backbone is named, or the variant ``config`` is impossible on it.
        CheckpointError: the backbone cannot be read.
        DMPError: it cannot be counted.
    """
    if common.dry_run:
        printer.plan({"memory": network.name, "batches": list(asked.batches)})
        return
    backbone = _find_backbone(network)
    name, family = str(network.name), backbone.family
    weights = backbone.num_parameters()
    trainee = _prepare(backbone, config)
    learnt, rows = trainee.num_learnt, _count(trainee, asked.batches, printer)
    percent, shape = 100 * learnt / weights, " x ".join(map(str, backbone.sample_shape))
    title = f"GiB, {name} ({family}), samples of {shape}, a patch of {learnt:,} parameters, +{percent:.4f} %"
    printer.table(title, _COLUMNS, [_in_words(row) for row in rows])
    for note in _NOTES:
        printer.say(note)
    printer.result(
        {
            "backbone": name,
            "family": family,
            "weights": weights,
            "patch_parameters": learnt,
            "per_cent": percent,
            "sample_shape": list(backbone.sample_shape),
            "rows": rows,
        }
    )


def _find_backbone(network: NetworkOptions) -> Backbone:
    """The backbone, without its weights where a name or a folder tells its sizes."""
    from ...backbones import build_backbone, is_size_name, peek_backbone
    from ...pipeline import load_bare

    name = network.backbone
    if name is not None and network.checkpoint is None and is_size_name(name):
        factor, size = 1 if network.vae == "none" else 8, network.image_size
        sides = None if size is None else sides_of(size).over(factor).written
        return build_backbone(name, num_classes=network.num_classes, input_size=sides)
    if network.image_size is None and network.name is not None:  # else only the codec tells the size of a sample
        found = peek_backbone(network.name, network.checkpoint)
        if found is not None:
            return found
    pixels = network.model_copy(update={"vae": "none"}) if network.is_digits else network
    return load_bare(pixels, "cpu").backbone


def _config(precision: str, images: int, *, recomputed: bool = False) -> TrainConfig:
    how = {**_PRECISIONS[precision], "batch_size": images, "gradient_checkpointing": recomputed}
    return build(TrainConfig, data=Path(), **how)


def _prepare(backbone: Backbone, patch: PatchConfig) -> Trainee:
    from ...training import prepare_dry

    return prepare_dry(_config("fp32", 1), backbone, patch)


def _count(trainee: Trainee, batches: tuple[int, ...], printer: Printer) -> list[dict[str, Any]]:
    """A row for each precision and number of images, in bytes."""
    from ...training import count_sampling, count_training

    cases = [(precision, images) for precision in _PRECISIONS for images in batches]
    rows: list[dict[str, Any]] = []
    with printer.progress("count", len(cases)) as advance:
        for precision, images in cases:
            kept = count_training(trainee, _config(precision, images))
            recomputed = count_training(trainee, _config(precision, images, recomputed=True))
            sampled = count_sampling(trainee, _config(precision, images), images=images)
            rows.append(_row(precision, images, kept, recomputed, sampled))
            advance(len(rows), "")
    return rows


def _row(precision: str, images: int, kept: Need, recomputed: Need, sampled: Need) -> dict[str, Any]:
    return {
        "precision": precision,
        "images": images,
        "frozen_weights": kept.weights,
        "learnt_and_optimizer": kept.learnt,
        "training": kept.peak,
        "training_recomputed": recomputed.peak,
        "sampling": sampled.peak,
        "in_main_memory": kept.aside,
    }


def _in_words(row: dict[str, Any]) -> list[str]:
    sizes = [row[name] for name in ("frozen_weights", "training", "training_recomputed", "sampling")]
    return [row["precision"], f"{row['images']:,}", *(f"{size / _GIB:.2f}" for size in sizes)]
