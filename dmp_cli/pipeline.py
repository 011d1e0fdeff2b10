"""From options to a loaded backbone, patched or bare, and its codec: what Python users and all commands call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .config import NetworkOptions, PatchConfig, PatchRecord, sides_of
from .errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .backbones import Backbone
    from .latents import Codec
    from .patching import Adapter, Patch, Tuned


@dataclass
class Loaded:
    """A backbone ready to be called, and what goes with it."""

    backbone: Backbone
    codec: Codec
    denoiser: nn.Module  # the patched backbone, or the bare one
    record: PatchRecord | None  # the patch's own; None without a patch
    adapter: Adapter | Tuned | None = None  # inside the backbone


def load_bare(network: NetworkOptions, device: torch.device | str) -> Loaded:
    """The backbone that ``network`` names, without a patch, and its codec.

    Raises:
        ConfigError: no backbone named, or options that contradict the file.
        CheckpointError: weights that are missing, damaged, unsafe, or do not fit.
    """
    _check_codec(network)
    return with_codec(load_backbone_alone(network, device), network)


def load_backbone_alone(network: NetworkOptions, device: torch.device | str) -> Backbone:
    """The backbone that ``network`` names, without its codec. Raises as :func:`load_bare`."""
    from .backbones import load_backbone

    if network.name is None:
        raise ConfigError("no backbone given", hint="Name one with --backbone, for example --backbone dit-b2.")
    return load_backbone(
        network.name,
        checkpoint=network.checkpoint,
        num_classes=network.num_classes,
        num_heads=network.num_heads,
        trained_with=network.trained_with,
        schedule=network.schedule,
        objective=network.objective,
        image_size=network.image_size,
        text=network.text,
        download=network.download,
        device=device,
    )


def load_fresh(network: NetworkOptions, device: torch.device | str, *, data_classes: int, seed: int) -> Loaded:
    """A backbone with fresh weights: its classes are those of the data, its size is that of ``image_size``.

    Raises:
        ConfigError: no sizes named, or sizes that the family does not have.
    """
    from .backbones import build_backbone, named_schedule

    if network.backbone is None:
        raise ConfigError("no backbone given", hint="Name its sizes with --backbone: dit-s2 … dit-xl8 or a .json file.")
    _check_codec(network)
    pixels, size = network.vae == "none", network.image_size
    sizes_file = network.backbone.endswith(".json")
    backbone = build_backbone(
        network.backbone,
        device="cpu",
        num_classes=network.num_classes or (None if sizes_file else max(data_classes, 1)),
        input_size=None if size is None else sides_of(size).over(1 if pixels else 8).written,
        in_channels=3 if pixels and not sizes_file else None,
    )
    backbone.initialise(seed=seed)
    if network.schedule or network.objective:
        backbone.schedule = named_schedule(network.schedule, network.objective)
    return with_codec(backbone.to(device), network)


def load_adapted(path: Path, network: NetworkOptions, device: torch.device | str) -> Loaded:
    """The backbone that ``network`` names, with what ``path`` holds inside it: a LoRA or DoRA, or tuned weights.

    Raises:
        CheckpointError: it is missing, damaged, or of another backbone; or as :func:`load_bare`.
        ConfigError: tuned weights that were trained with another codec; or as :func:`load_bare`.
    """
    from .patching import load_any_adapter

    loaded = load_bare(network, device)
    check_codec_of(path, loaded)
    loaded.adapter = load_any_adapter(path, loaded.backbone)
    return loaded


def check_codec_of(path: Path, loaded: Loaded) -> None:
    """Raise ConfigError when ``path`` holds tuned weights that were trained in the space of another codec."""
    from .patching import is_tuned, read_tuned

    if not is_tuned(path):
        return
    ours, theirs = loaded.codec.record, read_tuned(path)[0].codec
    if not theirs.is_same(ours):
        raise ConfigError(
            f"{path} was trained with another codec: {theirs.source or theirs.kind}, not {ours.source or ours.kind}",
            hint="Give that codec with --vae.",
        )


def load_patched(
    path: str | Path,
    network: NetworkOptions,
    device: torch.device | str,
    *,
    strength: float = 1.0,
    force: bool = False,
    give: Callable[[Backbone], None] = lambda backbone: None,
) -> Loaded:
    """The patch in the file ``path`` attached to its backbone, with the codec it was trained with.

    Args:
        network: where the backbone is now; a patch knows where it was.
        strength: factor on what the patch adds.
        force: accept other weights, another codec and another text encoder than those of its training.
        give: called with the backbone before anything asks for its captions.

    Raises:
        PatchError: a damaged patch, or one that does not fit the backbone.
        ConfigError, CheckpointError: as :func:`load_bare`.
    """
    from .backbones import check_same_text
    from .patching import attach, load_patch

    patch = load_patch(path)
    assert patch.record is not None
    _check_codec(network)
    backbone = load_backbone_of(patch, network, device)
    give(backbone)
    patched = attach(backbone, patch, strength=strength, force=force)
    loaded = with_codec(backbone, network, patch.record, force=force)
    if patch.record.text is not None and not force:
        check_same_text(patch.record.text, backbone.captions.encoder.record)
    return Loaded(backbone, loaded.codec, patched, patch.record)


def add_patches(loaded: Loaded, further: Sequence[tuple[Path, float]], *, force: bool = False) -> None:
    """Attach more patches beside the one in ``loaded``: files and strengths. Their mixtures add up.

    Raises:
        PatchError: a damaged patch, or one that does not fit the backbone.
        ConfigError: a patch that was trained in another space than the first one, unless ``force``.
    """
    from .patching import attach, load_patch

    assert loaded.record is not None or not further
    for number, (path, strength) in enumerate(further, start=2):
        patch = load_patch(path)
        if patch.record is not None and loaded.record is not None and not force:
            ours, theirs = loaded.record.codec, patch.record.codec
            if not theirs.is_same(ours):
                raise ConfigError(
                    f"{path} was trained with another codec than the first patch: {theirs.source or theirs.kind}, not "
                    f"{ours.source or ours.kind}",
                    hint="Add up patches that were trained with one codec, or accept this one with --force-backbone.",
                )
        attach(loaded.denoiser, patch, strength=strength, name=f"{number}: {path.name}".replace(".", "_"), force=force)


def load_backbone_of(patch: Patch, network: NetworkOptions, device: torch.device | str) -> Backbone:
    """The backbone a patch belongs to: from where it was, or from where ``network`` says it is now."""
    from .backbones import reload_backbone

    assert patch.record is not None
    objective = patch.record.schedule.objective
    if network.objective not in (None, objective):
        raise ConfigError(
            f"--objective {network.objective} contradicts the patch, which was made for {objective}",
            hint="Leave --objective out.",
        )
    return reload_backbone(
        patch.record,
        name=network.backbone,
        checkpoint=network.checkpoint,
        text=network.text,
        download=network.download,
        device=device,
    )


def check_early(network: NetworkOptions, config: PatchConfig | None) -> Backbone | None:
    """The backbone without its weights, where its folder or name tells enough; ``config`` must suit it.

    Raises:
        ConfigError: a variant that the backbone cannot have, or an objective that is not its family's. It is said
            before a weight is read.
    """
    from .backbones import peek_backbone
    from .patching import check_variant

    backbone = None if network.name is None else peek_backbone(network.name, network.checkpoint)
    if backbone is not None and config is not None:
        check_variant(backbone, config)
    if backbone is not None and backbone.trained_as is not None and network.objective is not None:
        raise ConfigError(
            f"--objective {network.objective} contradicts {network.name}, which says {backbone.trained_as.objective}",
            hint="Leave --objective out.",
        )
    return backbone


def _check_codec(network: NetworkOptions) -> None:
    """Raise CheckpointError for a --vae that is not there, before the weights of the backbone are read."""
    from .latents import check_vae_place

    check_vae_place(network.vae)


def with_codec(
    backbone: Backbone, network: NetworkOptions, patch: PatchRecord | None = None, *, force: bool = False
) -> Loaded:
    """``backbone`` and its codec, set to the size of the images that are asked for, or that ``patch`` was made for.

    Raises:
        ConfigError, CheckpointError: the codec or the size does not fit, or its weights are not there.
    """
    from .latents import load_codec, set_image_size

    recorded = None if patch is None or force else patch.codec
    codec = load_codec(network.vae, backbone, record=recorded, download=network.download)
    made_for = None if patch is None else patch.image_size
    set_image_size(network.image_size or made_for, backbone, codec)
    return Loaded(backbone, codec, backbone, None)
