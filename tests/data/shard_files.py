"""Webdataset shards of small random images."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def png(seed: int, *, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes], *, format: int = tarfile.PAX_FORMAT, mode: Any = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=format) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_shards(folder: Path, counts: list[int], **how: Any) -> Path:
    """Shards of so many samples each: image, caption, class number mod 4."""
    number = 0
    for shard, count in enumerate(counts):
        members = {}
        for _ in range(count):
            key = f"{number:06d}"
            members |= {f"{key}.txt": f" caption {number}\n".encode(), f"{key}.png": png(number)}
            members[f"{key}.cls"] = str(number % 4).encode()
            number += 1
        write_tar(folder / f"train-{shard:03d}.tar", members, **how)
    return folder
