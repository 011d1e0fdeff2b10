"""Folders of pictures with captions as people have them: Hugging Face's image folders, kohya's, and those of a Mac."""

from __future__ import annotations

import json
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WORDS = ("café", "müde", "señor")


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return path


def json_lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def of_a_mac(folder: Path, *, beside: bool) -> Path:
    """Names as HFS+ decomposes them (NFD), and captions that name them as they are typed (NFC)."""
    typed = [unicodedata.normalize("NFC", word) for word in WORDS]
    for seed, word in enumerate(typed):
        picture(folder / f"{unicodedata.normalize('NFD', word)}.png", seed)
        if beside:
            (folder / f"{word}.txt").write_text(f"of {word}", encoding="utf-8")
    if not beside:
        rows = ({"file_name": f"{word}.png", "text": f"of {word}"} for word in typed)
        (folder / "metadata.jsonl").write_text(json_lines(*rows), encoding="utf-8")
    return folder


def nested(folder: Path, *, commas: bool) -> Path:
    """An image folder with a metadata file in each folder, about the images in and below it."""
    for place, names in {"fox": ["1.png", "deep,er.png"], "cat": ["1.png"]}.items():
        for seed, name in enumerate(names):
            picture(folder / place / name, seed)
        if commas:
            rows = "".join(f'"{name}",{seed},"a {place}, ""{name}"""\r\n' for seed, name in enumerate(names))
            (folder / place / "metadata.csv").write_text(f"file_name,id,text\r\n{rows}", newline="")
        else:
            rows = json_lines(*({"file_name": name, "text": f'a {place}, "{name}"'} for name in names))
            (folder / place / "metadata.jsonl").write_text(rows)
    return folder


def zip_of(folder: Path, path: Path, *, under: str = "", backslashes: bool = False) -> Path:
    """A zip of a folder; ``under`` one top folder; with the backslashes that some tools of Windows write."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                info = zipfile.ZipInfo("x")
                info.filename = under + file.relative_to(folder).as_posix()
                if backslashes:
                    info.filename = info.filename.replace("/", "\\")
                archive.writestr(info, file.read_bytes())
    return path


# Where captions lie, and how files are named -> its builder.
LAYOUTS = {
    "`metadata.jsonl` and `metadata.csv` in any folder": nested,
    "names typed on a Mac": of_a_mac,
    "zips with one top folder, or with backslashes": zip_of,
}
