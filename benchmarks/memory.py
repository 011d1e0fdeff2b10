"""Resident memory of whole commands over the number of their things: ``python -m benchmarks memory``.

Each command runs in a process of its own, on files that are made here and stand for hours of work: images that are
drawn already, arms that are trained already. A row is the most memory that the process held (VmHWM), pages of mapped
files among it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

_GROUP = 1000  # images in a tar
_SIDE, _WIDE = 8, 26  # pixels; 3 x 26 x 26 features are as many as Inception has, but for 20
_DIGITS = ("--backbone", "digits")
_QUICK = (*_DIGITS, "--steps", "1")
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


def write_images(path: Path, *, count: int, seed: int, side: int = _SIDE) -> None:
    """Write an .npz of ``count`` random images, block by block."""
    draw = np.random.default_rng(seed)
    with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w", force_zip64=True) as entry:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
        np.lib.format.write_array_header_1_0(entry, header)
        for start in range(0, count, _GROUP):
            entry.write(draw.integers(0, 256, (min(_GROUP, count - start), side, side, 3), np.uint8).tobytes())


def scores(folder: Path, count: int, *, side: int = _SIDE) -> float:
    """``dmp eval`` of ``count`` images against as many, FID and KID, with ten resamples, on their pixels."""
    for seed, name in enumerate(("samples", "reference")):
        write_images(folder / f"{name}.npz", count=count, seed=seed, side=side)
    how = ["--features", "pixels", "--metrics", "fid,kid", "--bootstrap", "10", "--batch-size", "512", "-q"]
    saved = ["--save-stats", "statistics.npz"]
    return peak_of(["eval", "--samples", "samples.npz", "--reference", "reference.npz", *how, *saved], folder=folder)


def drawn_images(folder: Path, count: int, *, tar: bool, network: Sequence[str] = _QUICK) -> list[str]:
    """Lay ``count`` images into a folder as if ``network`` had drawn them; the command that finds them all there."""
    words = ["sample", *network, "-o", "drawn", "-q", *(["--tar"] if tar else [])]
    peak_of([*words, "-n", "2", "--batch-size", "2"], folder=folder)
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
    return [*words, "-n", str(count), "--batch-size", "2", "--npz"]


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


def planned_images(folder: Path, count: int) -> float:
    """``dmp sample --plan`` of as many lines, each with a seed and a class, of which all images are drawn already."""
    lines = (f'{{"seed": {index}, "class": {index % 10}}}\n' for index in range(count))
    with (folder / "plan.txt").open("w") as file:
        file.writelines(lines)
    command = drawn_images(folder, count, tar=True, network=[*_QUICK, "--plan", "plan.txt"])
    return peak_of(command, folder=folder)


def prompts(folder: Path, count: int) -> float:
    """``dmp sample --prompts`` of as many different prompts, through a small pipeline; all images are drawn already."""
    from tests.backbones.pipelines import write_stock_pipeline

    write_stock_pipeline(folder / "pipeline")
    with (folder / "prompts.txt").open("w") as file:
        file.writelines(f"a photo of a fox that looks at the number {index} --d {index}\n" for index in range(count))
    network = ["--backbone", "pipeline", "--steps", "10", "--prompts", "prompts.txt"]
    return peak_of(drawn_images(folder, count, tar=True, network=network), folder=folder)


def scored_folders(folder: Path, count: int) -> float:
    """``dmp eval`` of as many sets of 1,000 images at once, as an ablation of so many arms scores them."""
    samples = []
    for seed in range(count):
        write_images(folder / f"{seed}.npz", count=1000, seed=seed)
        samples += ["--samples", f"{seed}.npz"]
    write_images(folder / "reference.npz", count=1000, seed=count)
    how = ["--features", "pixels", "--metrics", "fid", "-q"]
    return peak_of(["eval", *samples, "--reference", "reference.npz", *how], folder=folder)


def arms(folder: Path, count: int) -> float:
    """``dmp ablate`` of as many arms, one after the other in one process: one step, 16 images, one seed."""
    lines = (f'[[arm]]\nname = "arm{index}"\nlr = {1e-3 * (index + 1)}\n' for index in range(count))
    (folder / "arms.toml").write_text("\n".join(lines))
    small = ["--steps", "1", "--points", "1", "-n", "16", "--sampling-steps", "1", "--metrics", "fid"]
    words = ["ablate", "arms.toml", *_DIGITS, *small, "--device", "cpu", "-o", "out", "-q"]
    return peak_of(words, folder=folder)


MILLION = (10_000, 100_000, 1_000_000)
PARTS: dict[str, tuple[str, Callable[[Path, int], float], tuple[int, ...]]] = {
    "tars": ("images, `dmp sample -n N --tar --npz`, drawn already", images_in_tars, MILLION),
    "files": ("images, `dmp sample -n N --npz`, drawn already", single_images, (1_000, 10_000, 100_000)),
    "plan": ("lines, `dmp sample --plan`, drawn already", planned_images, MILLION),
    "prompts": ("prompts, `dmp sample --prompts`, drawn already", prompts, MILLION),
    "scores": ("images, `dmp eval --bootstrap 10`, FID and KID", scores, MILLION),
    "wide": ("the same with 2,028 features", partial(scores, side=_WIDE), (5_000, 50_000, 1_000_000)),
    "folders": ("folders of 1,000 images, one `dmp eval`", scored_folders, (4, 20, 100)),
    "arms": ("arms, `dmp ablate`, one after the other", arms, (4, 20, 100)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each command and number; the last column is what each further thing has taken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--most", type=int, default=1_000_000, help="leave out larger numbers")
    parser.add_argument("--in", dest="place", type=Path, help="where files are made; a million images take 3 GB")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.parts) - PARTS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    print("| N | what | peak, MiB | bytes for each more |\n|--:|---|--:|--:|", flush=True)
    for name, (what, measure, counts) in PARTS.items():
        before: tuple[int, float] | None = None
        for count in counts if not asked.parts or name in asked.parts else ():
            if count > asked.most:
                continue
            with tempfile.TemporaryDirectory(dir=asked.place) as folder:
                peak = measure(Path(folder), count)
            more = "" if before is None else f"{(peak - before[1]) * 2**20 / (count - before[0]):,.0f}"
            print(f"| {count:,} | {what} | {peak:,.0f} | {more} |", flush=True)
            before = count, peak


if __name__ == "__main__":
    main()
