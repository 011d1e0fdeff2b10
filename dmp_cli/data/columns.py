"""Which columns of a table hold the images, the captions and the classes: as named, or as they are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import DataError

_IMAGES = ("image", "img", "jpg", "png", "webp", "jpeg")
_CAPTIONS = ("caption", "text", "captions", "texts", "prompt", "txt", "sentences", "description")
_LABELS = ("label", "labels", "class", "cls", "class_id", "fine_label", "category")
_NONE = "none"


class Columns(NamedTuple):
    """The columns as a user names them; None: they are to be found."""

    image: str | None = None
    caption: str | None = None
    label: str | None = None


class Chosen(NamedTuple):
    """The columns that are read; None: there is none."""

    image: str
    caption: str | None
    label: str | None
    classes: list[str] | None  # their names, where the table has them

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys(name for name in (self.image, self.caption, self.label) if name is not None))


def choose_columns(features: Mapping[str, Any], asked: Columns, *, place: str) -> Chosen:
    """The columns of a table with these ``features`` of ``datasets``.

    Raises:
        DataError: a column that is named is not there or holds something else, or several may be meant.
    """
    image = _choose(features, asked.image, _IMAGES, _holds_images, what="image", place=place)
    if image is None:
        raise DataError(
            f"{place} has no column with images; it has {', '.join(features)}", hint="Name it with --image-column."
        )
    rest = {name: feature for name, feature in features.items() if name != image}
    caption = _choose(rest, asked.caption, _CAPTIONS, _holds_texts, what="caption", place=place)
    label = _choose(rest, asked.label, _LABELS, _holds_classes, what="label", place=place, sure=_is_class_label)
    classes = None if label is None else getattr(features[label], "names", None)
    return Chosen(image, caption, label, classes)


def _choose(
    features: Mapping[str, Any],
    named: str | None,
    usual: tuple[str, ...],
    fits: Any,
    *,
    what: str,
    place: str,
    sure: Any = None,
) -> str | None:
    """The column ``named``; else the only one that is ``sure`` to be meant, else the first of the usual names."""
    option = f"--{what}-column"
    if named is not None and named != _NONE:
        if named not in features:
            raise DataError(f"{option} {named}: {place} has no such column; it has {', '.join(features)}")
        if not fits(features[named]):
            raise DataError(f"{option} {named}: the column of {place} holds {_in_words(features[named])}")
        return named
    if named == _NONE and what != "image":
        return None
    fitting = [name for name, feature in features.items() if fits(feature)]
    certain = [name for name in fitting if (sure or (_holds_images if what == "image" else _never))(features[name])]
    called = [name for name in usual if name in fitting]
    if len(certain) == 1:
        return certain[0]
    if called:
        return called[0]
    if len(certain) > 1 or (what == "image" and len(fitting) > 1):
        many = certain or fitting
        raise DataError(f"{place} has several columns for it: {', '.join(many)}", hint=f"Name one with {option}.")
    return None


def _never(feature: Any) -> bool:
    return False


def _holds_images(feature: Any) -> bool:
    return type(feature).__name__ == "Image" or getattr(feature, "dtype", None) in ("binary", "large_binary")


def _holds_texts(feature: Any) -> bool:
    inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) and feature else feature)
    return getattr(inner, "dtype", None) in ("string", "large_string")


def _holds_classes(feature: Any) -> bool:
    kind = str(getattr(feature, "dtype", ""))
    return kind.startswith(("int", "uint")) or kind in ("string", "large_string")


def _is_class_label(feature: Any) -> bool:
    return type(feature).__name__ == "ClassLabel"


def _in_words(feature: Any) -> str:
    return f"{getattr(feature, 'dtype', None) or type(feature).__name__}"
