"""Which network ``dmp sample`` draws from, and which other version of it guidance leads away from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import CheckpointError, ConfigError
from .classes import check_classes

if TYPE_CHECKING:
    import torch

    from ...backbones import Backbone
    from ...config import CodecRecord
    from ...patching import PatchedBackbone, Versions
    from ...pipeline import Loaded
    from ..texts import Captions
    from .job import Request

_NAME = "against"  # of the other version's patch
BASE = "base"  # the name of the backbone itself, as the other version


def load(request: Request, device: torch.device, captions: Captions) -> Loaded:
    """The network that is asked for: with patches, with an adapter, or bare; it gets the captions encoded so far."""
    from ...pipeline import add_patches, load_adapted, load_bare, load_patched

    if request.options.adapter is not None or not request.patches:
        adapter = request.options.adapter
        bare = load_bare(request.network, device) if adapter is None else load_adapted(adapter, request.network, device)
        captions.give(bare.backbone)
        return bare
    first, *further = request.patches
    how: dict[str, Any] = {"strength": first.strength, "force": request.force_backbone, "give": captions.give}
    loaded = load_patched(first.path, request.network, device, **how)
    add_patches(loaded, further, force=request.force_backbone)
    if request.options.no_patch:
        loaded.denoiser.detach()  # type: ignore[operator]
        loaded.denoiser = loaded.backbone.eval()
    return loaded


def remarks_on(loaded: Loaded, quantize: str | None) -> tuple[str, ...]:
    """What was assumed of a bare network, or what is to be known of the patch on it; ``quantize`` as it is drawn."""
    if loaded.record is None:
        return loaded.backbone.remarks
    few = (loaded.record.training or {}).get("quantize")
    if few == quantize:
        return ()
    drawn = "float" if quantize is None else f"in {quantize}"
    return (f"the patch was trained on weights in {few or 'float'}, and these are {drawn}: nearly the same",)


def load_versions(request: Request, loaded: Loaded, device: torch.device) -> Versions | None:
    """The network and the version of it that --against names; None without it. ``loaded`` then has both in it.

    Raises:
        ConfigError: both are the same, or the other version is of another backbone, codec or classes.
    """
    named = request.options.against
    if named is None:
        return None
    from ...patching import AdapterVersions, BackboneVersions, PatchVersions, Tuned, is_tuned

    path, adapted = Path(named), request.options.adapter is not None
    if named == BASE:
        if isinstance(loaded.adapter, Tuned):
            return BackboneVersions(loaded.denoiser, loaded.adapter.bare(loaded.backbone))
        if adapted:
            return AdapterVersions(loaded.backbone, is_ours=True)
        if request.bare:
            raise ConfigError("--against base: the backbone itself is drawn from", hint="Give a patch to draw with.")
        return PatchVersions(loaded.denoiser, theirs=())  # type: ignore[arg-type]
    if is_tuned(path) or (path.is_dir() and (path / "adapter_config.json").exists()):
        if adapted or not request.bare:
            raise ConfigError(
                f"--against {named}: an adapter works against the bare backbone only",
                hint="Leave out --patch and --adapter, or give --against a patch.",
            )
        return _against_adapter(path, request, loaded)
    if _is_patch(path):
        if adapted:
            raise ConfigError("--adapter goes without a patch, also behind --against")
        return PatchVersions(_attach(path, loaded, force=request.force_backbone), theirs=(_NAME,))
    other = _load_other(path, loaded, device)
    if request.bare and not adapted and _digest(other) == _digest(loaded.backbone):
        raise ConfigError(f"--against {named}: it has the weights of the backbone that is drawn from")
    return BackboneVersions(loaded.denoiser, other)


def _against_adapter(path: Path, request: Request, loaded: Loaded) -> Versions:
    """The bare backbone, and the same one with an adapter."""
    from ...patching import (
        AdapterVersions,
        BackboneVersions,
        is_tuned,
        load_adapter,
        load_tuned,
        share_weights,
        training_of,
    )
    from ...pipeline import check_codec_of

    if not request.force_backbone:
        check_codec_of(path, loaded)
        check_classes(path, training_of(path).classes, loaded)
    if is_tuned(path):
        other = share_weights(loaded.backbone)
        load_tuned(path, other)
        return BackboneVersions(loaded.denoiser, other)
    load_adapter(path, loaded.backbone)
    return AdapterVersions(loaded.backbone, is_ours=False)


def _digest(backbone: Backbone) -> str:
    assert backbone.record is not None
    return backbone.record.digest


def _is_patch(path: Path) -> bool:
    from ...storage import read_header

    return path.suffix == ".safetensors" and "dmp.header" in read_header(path).metadata


def _attach(path: Path, loaded: Loaded, *, force: bool) -> PatchedBackbone:
    """The network with the patch in ``path`` beside what is there, to be predicted with in rows of its own."""
    from ...patching import attach, load_patch

    patch = load_patch(path)
    assert patch.record is not None
    if not force:
        _check_codec(path, patch.record.codec, loaded)
        check_classes(path, (patch.record.training or {}).get("classes"), loaded)
    return attach(loaded.denoiser, patch, name=_NAME, force=force)


def _load_other(path: Path, loaded: Loaded, device: torch.device) -> Backbone:
    """Another backbone of the same shape, with weights of its own."""
    from ...backbones import load_backbone, trained_classes
    from ...patching import check_alike, refuse_text

    ours = loaded.backbone
    refuse_text(ours, named=f"--against {path}")
    if not path.exists():
        raise ConfigError(
            f"--against {path}: there is no such file or folder",
            hint="Give a patch file, an adapter, a backbone file, or base.",
        )
    heads = ours.sizes.get("num_heads") if ours.family == "dit" else None
    try:
        other = load_backbone(
            str(path),
            num_classes=ours.num_classes or None,
            num_heads=heads,
            objective=None if ours.schedule.flow == "rectified" else ours.schedule.flow,
            device=device,
        ).eval()
    except (CheckpointError, ConfigError) as error:
        raise type(error)(f"--against {path}: {error.message}", hint=error.hint) from error
    check_alike(ours, other, named=f"--against {path}")
    check_classes(path, trained_classes(str(path)), loaded)
    if other.codec is not None:
        _check_codec(path, other.codec, loaded)
    return other


def _check_codec(path: Path, theirs: CodecRecord, loaded: Loaded) -> None:
    if not theirs.is_same(loaded.codec.record):
        raise ConfigError(f"--against {path}: it works in the space of another codec, {theirs.source or theirs.kind}")


def identity_of(named: str) -> str:
    """What fixes the other version: ``base``, or the SHA-256 of its patch, adapter or backbone."""
    from ...patching import tensors_of
    from ...storage import sha256_of

    return BASE if named == BASE else sha256_of(tensors_of(Path(named)))
