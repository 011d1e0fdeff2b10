"""Resident memory of whole commands over the number of their things: ``python -m benchmarks.memory [--counts 10000,100000]``.

Each command runs in a process of its own, on files that are made here and stand for hours of work: images that are
drawn already, arms that are trained already. A row is the most memory that the process held (VmHWM), pages of mapped
files among it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

_GROUP = 1000  # images in a tar
_SIDE = 8  # pixels
# The peak is read inside of the process: that of a child counts what its parent held when it was started.
_WATCHED = """
import sys
from dmp_cli.cli import main
try:
    main()
finally:
    lines = open("/proc/self/status").read().splitlines()
    print("peak", next(line.split()[1] for line in lines if line.startswith("VmHWM")), file=sys.stderr)
"""


def peak_of(words: list[str], *, folder: Path) -> float:
    """The most memory in MiB that ``dmp`` with these words has held. Raises where it fails."""
    command = [sys.executable, "-c", _WATCHED, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"dmp {' '.join(words)}: {done.stderr[-2000:]}")
    return int(done.stderr.split("peak ")[-1].split()[0]) / 1024


def write_images(path: Path, *, count: int, seed: int) -> None:
    """Write an .npz of ``count`` random images, block by block."""
    draw = np.random.default_rng(seed)
    with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w", force_zip64=True) as entry:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, _SIDE, _SIDE, 3)}
        np.lib.format.write_array_header_1_0(entry, header)
        for start in range(0, count, _GROUP):
            entry.write(draw.integers(0, 256, (min(_GROUP, count - start), _SIDE, _SIDE, 3), np.uint8).tobytes())


def scores(folder: Path, count: int) -> float:
    """``dmp eval`` of ``count`` images against as many, FID and KID, with ten resamples, on 192 features."""
    for seed, name in enumerate(("samples", "reference")):
        write_images(folder / f"{name}.npz", count=count, seed=seed)
    how = ["--features", "pixels", "--metrics", "fid,kid", "--bootstrap", "10", "--batch-size", "512", "-q"]
    saved = ["--save-stats", "statistics.npz"]
    return peak_of(["eval", "--samples", "samples.npz", "--reference", "reference.npz", *how, *saved], folder=folder)


def drawn_images(folder: Path, count: int, *, tar: bool) -> list[str]:
    """Lay ``count`` images of the digits' backbone into a folder as if they were drawn; the command that ends it."""
    words = ["sample", "--backbone", "digits", "--steps", "1", "-o", "drawn", "-q", *(["--tar"] if tar else [])]
    peak_of([*words, "-n", "16"], folder=folder)
    drawn = folder / "drawn"
    mark = (drawn / "SHA256SUMS").read_text().splitlines()[0]
    for path in [*drawn.glob("*.png"), *drawn.glob("*.tar")]:
        path.unlink()
    draw, lines = np.random.default_rng(0), [mark]
    for first in range(0, count, _GROUP):
        files = {}
        for index in range(first, min(first + _GROUP, count)):
            buffer = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (_SIDE, _SIDE), np.uint8)).save(buffer, "PNG")
            files[f"{index:06d}.png"] = buffer.getvalue()
        lines += [f"{hashlib.sha256(data).hexdigest()}  {name}" for name, data in files.items()]
        _lay(drawn, files, group=first // _GROUP if tar else None)
    (drawn / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    return [*words, "-n", str(count), "--npz"]


def _lay(folder: Path, files: dict[str, bytes], *, group: int | None) -> None:
    if group is None:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return
    with tarfile.open(folder / f"samples-{group:05d}.tar", "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def images_in_tars(folder: Path, count: int) -> float:
    """The last stretch of ``dmp sample -n COUNT --tar --npz``: all is listed, checked by its sum and written."""
    return peak_of(drawn_images(folder, count, tar=True), folder=folder)


def single_images(folder: Path, count: int) -> float:
    """The same of single files."""
    return peak_of(drawn_images(folder, count, tar=False), folder=folder)
