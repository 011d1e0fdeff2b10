"""dmp_cli.data.dali_index: an index of wds2idx is believed where it fits its shard, and gives what listing gives."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from dmp_cli.data import shard_members
from dmp_cli.data.shard_members import Members, list_members
from dmp_cli.data.tars import TarHeaders
from dmp_cli.errors import DataError

from .shard_files import png, write_tar

MEMBERS = {
    **{f"{i}.{end}": png(i) if end == "png" else b"%d" % (i % 3) for i in range(12) for end in ("png", "cls")},
    "x.json": b'{"text": "a cat"}',
    "x.png": png(40),
    "y.txt": b"no image",
}


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The shards whose headers are walked through."""
    found: list[Path] = []

    class Watched(TarHeaders):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.path = path

        def __iter__(self):  # type: ignore[no-untyped-def]
            found.append(self.path)
            return super().__iter__()

    monkeypatch.setattr(shard_members, "TarHeaders", Watched)
    return found


def write_index(shard: Path, *, version: str = "v1.2", drop: int = 0) -> Path:
    """The index as wds2idx writes it: consecutive members of one key share a line. ``drop``: lines left out."""
    lines: list[tuple[str, list[str]]] = []
    with tarfile.open(shard) as archive:
        for member in archive:
            stem, _, extension = member.name.partition(".")
            words = [extension, str(member.offset_data), str(member.size), member.name]
            if lines and lines[-1][0] == stem:
                lines[-1][1].extend(words)
            else:
                lines.append((stem, words))
    kept = lines[: len(lines) - drop]
    index = shard.with_suffix(".idx")
    index.write_text("".join([f"{version} {len(kept)}\n", *(" ".join(words) + "\n" for _, words in kept)]))
    return index


def shard_of(folder: Path, **how: int) -> tuple[Path, Members]:
    shard = write_tar(folder / "s.tar", MEMBERS, **{"format": tarfile.USTAR_FORMAT, **how})
    return shard, list_members(shard, rules=3)


@pytest.mark.parametrize("name", ["s.idx", "s.tar.idx"])
def test_it_gives_what_the_headers_give(tmp_path, walked, name):
    shard, expected = shard_of(tmp_path)
    write_index(shard).rename(tmp_path / name)
    assert walked == [shard]
    walked.clear()
    assert list_members(shard, rules=3) == expected
    assert list_members(shard, rules=1).samples[:12] == expected.samples[:12]
    assert walked == []
    assert len(expected.samples) == 13


@pytest.mark.parametrize("fault", ["older", "v1.1", "dropped", "counted", "moved", "cut", "renamed", "number", "gap"])
def test_what_does_not_fit_is_listed(tmp_path, walked, fault):
    shard, expected = shard_of(tmp_path)
    index = write_index(shard, version="v1.1" if fault == "v1.1" else "v1.2", drop=fault == "dropped")
    text = index.read_text()
    changed = {
        "counted": text.replace("v1.2 14", "v1.2 13"),
        "moved": text.replace(" 512 ", " 1024 "),
        "cut": text[:-9],
        "renamed": text.replace("0.png", "9.png", 1),
        "number": text.replace(" 512 ", " x "),
        "gap": text.replace(text.splitlines()[5] + "\n", "").replace("v1.2 14", "v1.2 13"),
    }
    assert text != changed.get(fault)
    index.write_text(changed.get(fault, text))
    if fault == "older":
        os.utime(index, ns=(1, 1))
    walked.clear()
    assert list_members(shard, rules=3) == expected
    assert walked == [shard]


def test_another_shard_under_the_same_index_is_seen(tmp_path, walked):
    shard, _ = shard_of(tmp_path)
    index = write_index(shard)
    members = {name.replace("x.", "z."): data for name, data in MEMBERS.items()}
    write_tar(shard, members, format=tarfile.USTAR_FORMAT)
    os.utime(index)
    walked.clear()
    assert [sample.name for sample in list_members(shard, rules=3).samples][-1] == "z.png"
    assert walked == [shard]


def test_pax_headers_between_members_are_walked_through(tmp_path, walked):
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5
            archive.addfile(info, io.BytesIO(data))
    expected = list_members(shard, rules=3)
    write_index(shard)
    walked.clear()
    assert list_members(shard, rules=3) == expected
    assert walked == [shard]


def test_a_cut_shard_is_refused_though_its_index_is_whole(tmp_path):
    shard, _ = shard_of(tmp_path)
    index = write_index(shard)
    shard.write_bytes(shard.read_bytes()[:5000])
    os.utime(index)
    with pytest.raises(DataError, match=r"s\.tar"):
        list_members(shard, rules=3)
