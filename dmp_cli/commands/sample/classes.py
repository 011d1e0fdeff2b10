"""Whether two versions of a network were trained on data of the same classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigError

if TYPE_CHECKING:
    from ...pipeline import Loaded


def check_classes(path: Path, theirs: list[str] | None, loaded: Loaded) -> None:
    """Check the other version at ``path``, trained on data of the classes ``theirs`` (None: it names none).

    Raises:
        ConfigError: its classes are others than those of the network's own training, or of another number.
    """
    from ...backbones import trained_classes
    from ...data import are_other, describe_classes

    count, record = loaded.backbone.num_classes, loaded.backbone.record
    if not theirs:
        return
    what, ours = "patch", (loaded.record.training or {}).get("classes") if loaded.record is not None else None
    if not ours:
        what, ours = "backbone", trained_classes(record.source) if record is not None else None
    if not ours and count > 1:
        ours = [str(index) for index in range(count)]
    if ours and are_other(ours, theirs):
        raise ConfigError(
            f"--against {path} was trained on data of other classes than the {what}: "
            f"{describe_classes(theirs)}, not {describe_classes(ours)}",
            hint="Train it on samples of this network, or on data of the same classes.",
        )
