"""The pictures of the study on CIFAR-10: ``python -m benchmarks.studies.pictures ZIP FOLDER --side S --floor N``."""

from __future__ import annotations

import argparse
import os
import zipfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.cifar_pictures import write_shrunk

_HELD_OUT = 100  # training pictures of each class that nothing is trained on
_CLASSES = 10


def sort_out(names: list[str], *, floor: int) -> dict[str, list[str]]:
    """Which members of the zip go where: the folder of each name ``PART/CLASS/FILE``, by the order of the names.

    ``floor`` training pictures, as many of each class, are to be scored as if they were samples.

    Raises SystemExit if the zip does not hold CIFAR-10, balanced over ten classes.
    """
    found: dict[str, list[str]] = {"train": [], "held-out": [], "floor": [], "test": []}
    by_class: dict[tuple[str, str], list[str]] = {}
    for name in sorted(name for name in names if name.endswith((".jpg", ".png"))):
        part, label, _ = name.split("/")
        by_class.setdefault((part, label), []).append(name)
    counts = {(part, len(members)) for (part, _), members in by_class.items()}
    if len(by_class) != 2 * _CLASSES or counts != {("train", 5000), ("test", 1000)}:
        raise SystemExit("the zip does not hold train/CLASS/NAME.jpg and test/CLASS/NAME.jpg of CIFAR-10")
    for (part, _), members in by_class.items():
        if part == "test":
            found["test"] += members
            continue
        found["held-out"] += members[:_HELD_OUT]
        found["train"] += members[_HELD_OUT:]
        found["floor"] += members[-(floor // _CLASSES) :]
    return found


def write_class(archive: Path, folder: Path, side: int, work: tuple[str, list[str]]) -> None:
    """Write one class's pictures of one part as PNG, shrunk by a box filter; those that are there are kept."""
    part, names = work
    with zipfile.ZipFile(archive) as pictures:
        for name in names:
            path = (folder / part / name.split("/", 1)[1]).with_suffix(".png")
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            write_shrunk(pictures.read(name), path, side=side)


def main() -> None:
    """Write all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, choices=(16, 32), required=True)
    parser.add_argument("--floor", type=int, default=2000, help="training pictures that are scored like samples")
    given = parser.parse_args()
    done = given.folder / "done"
    if done.exists():
        return
    with zipfile.ZipFile(given.archive) as pictures:
        parts = sort_out(pictures.namelist(), floor=given.floor)
    works: dict[tuple[str, str], list[str]] = {}
    for part, names in parts.items():
        for name in names:
            works.setdefault((part, name.split("/")[1]), []).append(name)
    jobs = [(part, names) for (part, _), names in works.items()]
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(partial(write_class, given.archive, given.folder, given.side), jobs))
    done.touch()


if __name__ == "__main__":
    main()
