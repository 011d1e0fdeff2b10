"""Whether the images of a folder are as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError
from ..console import Printer

if TYPE_CHECKING:
    from ...sampling import SampleFolder

_SHOWN = 5  # damaged images named in an error


def check(folder: SampleFolder, count: int) -> None:
    """Raise DataError, naming them, when images are missing, changed since they were written, or foreign."""
    wrong = folder.verify(count)
    if wrong:
        named = "; ".join(wrong[:_SHOWN]) + ("; ..." if len(wrong) > _SHOWN else "")
        raise DataError(
            f"{len(wrong)} files in {folder.path} are not as they should be: {named}",
            hint="Remove them and run the same command again: what is missing is drawn anew.",
        )


def run_verify(path: Path, asked: int | None, printer: Printer) -> None:
    """Check the images 0..n-1 of a folder by their sums; None: as many as it was begun for."""
    from ...sampling import SampleFolder

    folder = SampleFolder(path)
    recorded = folder.recorded()
    if recorded is None:
        raise DataError(f"{folder.path} holds no samples of dmp", hint="Give the folder with -o.")
    count = asked or int(recorded["num_images"])
    check(folder, count)
    printer.say(f"{count} images in {folder.path} are as they were written")
    printer.result({"output": str(folder.path), "num_images": count, "verified": True})
