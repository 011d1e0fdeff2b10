"""Time and memory that listing a folder of a million files takes: ``python -m benchmarks.listing``.

With ``--members 10000000`` of webdataset shards instead: listed by ``--processes``, then opened by their index.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

_LISTING = "import sys; from benchmarks.listing import measure; measure(*sys.argv[1:])"
_MAPPING = "import sys; from benchmarks.listing import measure_mapped; measure_mapped(*sys.argv[1:])"
_MEMBERS = 9_999  # in a shard


def fill(folder: Path, *, count: int, per_folder: int) -> None:
    """Create ``count`` empty .jpg files, ``per_folder`` in each class folder."""
    for number in range(count):
        if number % per_folder == 0:
            inner = folder / f"{number // per_folder:05d}"
            inner.mkdir()
        (inner / f"picture-{number:08d}.jpg").touch()


def fill_shards(folder: Path, *, count: int) -> None:
    """Write shards of 9,999 members each, a third of them .jpg, .txt and .cls, ``count`` in all."""
    for shard in range(-(-count // _MEMBERS)):
        blocks = bytearray()
        for number in range(shard * _MEMBERS // 3, (shard + 1) * _MEMBERS // 3):
            for end, data in (("jpg", b"no picture"), ("txt", b"a caption"), ("cls", b"%d" % (number % 1000))):
                info = tarfile.TarInfo(f"{number:09d}.{end}")
                info.size = len(data)
                blocks += info.tobuf(tarfile.USTAR_FORMAT) + data.ljust(512, b"\0")
        (folder / f"shard-{shard:05d}.tar").write_bytes(blocks + bytes(1024))


def open_together(folder: str, processes: int) -> float:
    """Seconds until all of ``processes`` fresh processes have listed the shards of ``folder``; each prints its own."""
    start = time.perf_counter()
    commands = [subprocess.Popen([sys.executable, "-c", _LISTING, folder]) for _ in range(processes)]
    assert not any(command.wait() for command in commands)
    return time.perf_counter() - start


def measure(folder: str, place: str | None = None) -> None:
    """Print seconds and peak memory of listing ``folder``, then hand it over in ``place``.

    Needs a process of its own, as the peak never falls.
    """
    from dmp_cli.data.folder import FolderImages, find_images
    from dmp_cli.data.together import hand_over

    before, start = _peak(), time.perf_counter()
    images = find_images(folder)
    print(_in_words(len(images), start, before))
    if place is not None and isinstance(images, FolderImages):
        hand_over(images, Path(place))


def measure_mapped(folder: str, place: str) -> None:
    """The same of mapping what another process has handed over in ``place``."""
    from dmp_cli.data.bounds import Bounds
    from dmp_cli.data.together import take_over

    before, start = _peak(), time.perf_counter()
    images = take_over(Path(place), path=Path(folder), bounds=Bounds())
    assert images is not None
    print(f"  mapped: {_in_words(len(images), start, before)}")


def _in_words(count: int, start: float, before: float) -> str:
    seconds = time.perf_counter() - start
    return f"{count:,} images: {seconds:.2f} s, {_peak():.2f} GiB at the peak, {before:.2f} before; {_own()}"


def _own() -> str:
    """Memory of this process alone, without the pages that a file is mapped to."""
    lines = Path("/proc/self/status").read_text().splitlines() if Path("/proc/self/status").exists() else []
    told = [line.split() for line in lines if line.startswith(("RssAnon", "RssFile"))]
    return ", ".join(f"{line[0][3:-1].lower()} {int(line[1]) / 2**20:.2f} GiB" for line in told)


def _peak() -> float:
    """Peak memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Create the files, list them in a fresh process, and remove them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--members", type=int, help="of webdataset shards")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--in", dest="place", type=Path, help="where shards are made")
    asked = parser.parse_args()
    count = asked.count
    if asked.members is not None:
        with tempfile.TemporaryDirectory(dir=asked.place) as folder:
            fill_shards(Path(folder), count=asked.members)
            print(f"{asked.members:,} members in {-(-asked.members // _MEMBERS):,} shards", flush=True)
            print(f"listed by {asked.processes} processes: {open_together(folder, asked.processes):.1f} s", flush=True)
            print(f"opened by {asked.processes} processes: {open_together(folder, asked.processes):.1f} s", flush=True)
            open_together(folder, 1)
        return
    for per_folder in (count, 1000):
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), count=count, per_folder=per_folder)
            print("one class folder" if per_folder == count else f"{per_folder} files a class folder", flush=True)
            with tempfile.TemporaryDirectory() as place:
                for script in (_LISTING, _MAPPING):
                    subprocess.run([sys.executable, "-c", script, folder, f"{place}/handed"], check=True)


if __name__ == "__main__":
    main()
