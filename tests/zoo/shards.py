"""Webdataset shards as public tools write them: plain tars, cut ones, with an index of DALI, as img2dataset does."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def cut_between_members(path: Path, *, members: int) -> Path:
    """The same tar as a download leaves it that ended behind so many members."""
    with tarfile.open(path) as archive:
        following = archive.getmembers()[members]
    path.write_bytes(path.read_bytes()[: following.offset])
    return path


def dali_index(path: Path) -> Path:
    """The index that NVIDIA's wds2idx writes beside a tar: a version and a count, then the members of each sample."""
    keys: dict[str, list[str]] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            key, _, extension = member.name.partition(".")
            keys.setdefault(key, []).append(f"{extension} {member.offset_data} {member.size} {member.name}")
    lines = [f"v1.2 {len(keys)}", *(" ".join(parts) for parts in keys.values())]
    index = path.with_suffix(".idx")
    index.write_text("\n".join(lines) + "\n")
    return index


def img2dataset_members(key: str, image: bytes, caption: str | None) -> dict[str, bytes]:
    """What img2dataset writes for one image: its caption is null where the web page had none, and then no .txt."""
    about = {
        **{"url": f"https://example.org/{key}.jpg", "key": key, "status": "success", "error_message": None},
        **{
            "width": 256,
            "height": 256,
            "original_width": 640,
            "original_height": 480,
            "exif": "{}",
            "caption": caption,
        },
        "sha256": "0" * 64,
    }
    text = {} if caption is None else {f"{key}.txt": caption.encode()}
    return {f"{key}.jpg": image, f"{key}.json": json.dumps(about).encode(), **text}


# Shards as tools write them -> the builder.
LAYOUTS = {"webdataset": write_tar, "img2dataset": img2dataset_members, "with the index of DALI": dali_index}
REFUSED = {"a tar that was cut": cut_between_members}
