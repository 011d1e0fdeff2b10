"""Whether a backbone's weights are those that a patch was trained on, in whichever precision they are kept.

A patch records the digest of its backbone's float32 weights, and of the same weights rounded to bfloat16 and float16.
Weights in fewer bits cannot be compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..backbones import Backbone, reload_backbone
from ..config import BackboneRecord, PatchRecord
from ..errors import CheckpointError, PatchError
from ..storage import digest_tensors

_ROUNDED = {"bf16": torch.bfloat16, "fp16": torch.float16}
_COMPARED = {torch.float64, torch.float32, torch.bfloat16, torch.float16}
_OF_AN_ADAPTER = ("lora_", "adapter_")  # parts of the names that peft gives to its own tensors


class _Cast(Mapping[str, Tensor]):
    """Tensors in float32, each rounded to another type first where one is given, and cast only when it is asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], *, rounded: torch.dtype | None = None) -> None:
        self._tensors, self._rounded = tensors, rounded

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        return (tensor if self._rounded is None else tensor.to(self._rounded)).float()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def base_weights(backbone: Backbone) -> dict[str, Tensor]:
    """The backbone's own tensors under their own names, without those of peft's adapters inside it."""
    tensors = {name: t for name, t in backbone.state_dict().items() if not _is_of_an_adapter(name)}
    return {name.replace(".base_layer.", "."): tensor for name, tensor in tensors.items()}


def _is_of_an_adapter(name: str) -> bool:
    return any(part.startswith(_OF_AN_ADAPTER) for part in name.split("."))


def backbone_digest(backbone: Backbone) -> str:
    """SHA-256 of the backbone's present weights as float32. It does not depend on the file format they came from."""
    return digest_tensors(_Cast(base_weights(backbone)), without=backbone.derived_tensors())


def rounded_digests(backbone: Backbone) -> dict[str, str]:
    """SHA-256 of the backbone's weights after rounding to each half precision, by its short name."""
    weights, derived = base_weights(backbone), backbone.derived_tensors()
    return {name: digest_tensors(_Cast(weights, rounded=dtype), without=derived) for name, dtype in _ROUNDED.items()}


def check_digest(backbone: Backbone, record: BackboneRecord, *, what: str) -> None:
    """Raise CheckpointError if ``what`` trained on other weights than those of ``backbone``, to the last bit."""
    if backbone.record is not None and backbone.stamp() == backbone.recorded_stamp:
        digest = backbone.record.digest
    else:
        digest = digest_tensors(backbone.state_dict(), without=backbone.derived_tensors())
    if digest != record.digest:
        raise CheckpointError(
            f"{what} trained on another backbone: {record.source} with digest {record.digest[:12]}…, "
            f"not {digest[:12]}…",
            hint="Give that backbone with --backbone.",
        )


def check_weights(backbone: Backbone, record: PatchRecord) -> None:
    """Check that the weights of ``backbone`` are those of ``record``, or these rounded to a lower precision.

    Raises:
        PatchError: other weights.
    """
    known = backbone.record.digest if backbone.record and backbone.stamp() == backbone.recorded_stamp else None
    if known == record.backbone.digest:
        return
    if any(tensor.is_meta for tensor in base_weights(backbone).values()):
        warnings.warn(
            "this backbone's weights are offloaded and cannot be compared with those the patch was trained on; attach "
            "the patch first, then offload",
            stacklevel=4,
        )
        return
    kinds = {tensor.dtype for tensor in base_weights(backbone).values()}
    if not kinds <= _COMPARED:
        few = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds - _COMPARED))
        warnings.warn(
            f"this backbone keeps weights as {few}, which cannot be compared with those the patch was trained on; only "
            "their names and sizes were",
            stacklevel=4,
        )
        return
    digest = known or backbone_digest(backbone)
    if digest in (record.backbone.digest, *record.rounded.values()):
        return
    if _is_rounded(backbone, record):
        return
    about = record.backbone
    raise PatchError(
        f"this patch was trained on other weights: {about.source} with digest {about.digest[:12]}…, not {digest[:12]}…",
        hint="Give the original weights with --checkpoint, or accept these with --force-backbone.",
    )


def _is_rounded(backbone: Backbone, record: PatchRecord) -> bool:
    """Whether each weight is that of the recorded file, rounded to some precision; False where that file is gone.

    It serves patches that record no rounded digests, and backbones of which some weights are rounded and some are not.
    """
    try:
        original = reload_backbone(record)
    except CheckpointError:
        return False
    ours, theirs = base_weights(backbone), base_weights(original)
    if ours.keys() != theirs.keys():
        return False
    return all(
        any(torch.equal(theirs[name].to(dtype).to(tensor.dtype), tensor.cpu()) for dtype in _COMPARED)
        for name, tensor in ours.items()
    )
