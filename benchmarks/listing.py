"""Time and memory that listing a folder of a million files takes: ``python -m benchmarks.listing``."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_LISTING = "import sys; from benchmarks.listing import measure; measure(sys.argv[1])"


def fill(folder: Path, *, count: int, per_folder: int) -> None:
    """Create ``count`` empty .jpg files, ``per_folder`` in each class folder."""
    for number in range(count):
        if number % per_folder == 0:
            inner = folder / f"{number // per_folder:05d}"
            inner.mkdir()
        (inner / f"picture-{number:08d}.jpg").touch()


def measure(folder: str) -> None:
    """Print seconds and peak memory of listing ``folder``. Needs a process of its own, as the peak never falls."""
    from dmp_cli.data.folder import find_images

    before, start = _peak(), time.perf_counter()
    count = len(find_images(folder))
    seconds = time.perf_counter() - start
    print(f"{count:,} files: {seconds:.1f} s, {_peak():.2f} GiB at the peak, {before:.2f} before")


def _peak() -> float:
    """Peak memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Create the files, list them in a fresh process, and remove them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    count = parser.parse_args().count
    for per_folder in (count, 1000):
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), count=count, per_folder=per_folder)
            print("one class folder" if per_folder == count else f"{per_folder} files a class folder", flush=True)
            subprocess.run([sys.executable, "-c", _LISTING, folder], check=True)


if __name__ == "__main__":
    main()
