"""What a run records of its images: which ones they are, by which rules they were listed, and their classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..data import RULES
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..data import ImageSource

_FIRST = 1  # the rules of runs whose record states none


def images_record(images: ImageSource) -> dict[str, Any]:
    """The part ``images`` of a run's config.json. By the first rules it has the two fields that it had then."""
    record: dict[str, Any] = {"fingerprint": images.fingerprint, "count": len(images)}
    return record if images.rules == _FIRST else {**record, "rules": images.rules, "classes": images.classes}


def training_record(images: ImageSource) -> dict[str, Any]:
    """What a learnt file says of its images, so that their classes can be found again in the same order."""
    if images.rules == _FIRST:
        return {}
    return {"data_rules": images.rules, **({"classes": images.classes} if images.classes else {})}


def as_recorded(record: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of ``find_images`` to list images as :func:`images_record` says; None: as new runs do.

    Raises:
        ConfigError: a newer version of dmp listed them, by rules that this one does not know.
    """
    if record is None:
        return {}
    classes, rules = record.get("classes"), int(record.get("rules", _FIRST))
    if not _FIRST <= rules <= RULES:
        raise ConfigError(
            f"images were listed by rules {rules}, and this dmp knows {_FIRST} to {RULES}", hint="Update dmp."
        )
    return {"rules": rules, "recorded": None if classes is None else tuple(classes)}


def as_trained(training: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of ``find_images`` to list images as :func:`training_record` says; None: never trained here."""
    if training is None or "data_fingerprint" not in training:
        return {}
    return as_recorded({"rules": training.get("data_rules", _FIRST), "classes": training.get("classes")})
