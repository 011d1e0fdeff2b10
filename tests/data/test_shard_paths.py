"""dmp_cli.data.shard_paths: shards are named by a folder, a pattern or one file."""

from __future__ import annotations

import shutil
from pathlib import Path

from dmp_cli.data.folder import find_images
from dmp_cli.data.shard_paths import find_shards

from .shard_files import png, write_shards


def test_ways_to_name_shards(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "data", [1, 1, 1])
    of_folder = find_images(folder)
    for name in ("train-{000..002}.tar", "*.tar", "train-00[0-2].tar"):
        assert find_images(folder / name).fingerprint == of_folder.fingerprint
    assert len(find_images(folder / "train-{001..002}.tar")) == 2
    assert len(find_images(folder / "train-001.tar")) == 1
    shutil.move(folder, tmp_path / "moved")
    assert find_images(tmp_path / "moved").fingerprint == of_folder.fingerprint
    (tmp_path / "moved" / "a.png").write_bytes(png(0))  # a folder of images, with some tars beside them
    assert find_shards(tmp_path / "moved") == []
