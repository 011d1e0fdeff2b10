"""dmp_cli.data.tars and shard_members: headers of a stranger's tar are small, and its members are there."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from dmp_cli.data.bounds import Bounds
from dmp_cli.data.folder import find_images
from dmp_cli.errors import DataError
from dmp_cli.sampling.tars import SampleTars

from .shard_files import png, write_tar


def with_header(path: Path, info: tarfile.TarInfo, *, size: bytes | None = None, hole: int = 0) -> Path:
    """A tar of one header alone, whose field of the size is ``size``; then a hole, and the end."""
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    if size is not None:
        header[124:136] = size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header))
    os.truncate(path, 512 + hole + 1024)
    return path


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [1 << 31, 5 << 40])
def test_a_header_as_large_as_a_disk(kind: bytes, size: int, tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.type, info.size = kind, size
    path = with_header(tmp_path / "a.tar", info, hole=1 << 31)  # no byte of the hole is on the disk
    with pytest.raises(DataError, match=r"cannot read .*a\.tar: a header of"):
        find_images(path)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE])
def test_a_member_of_less_than_no_bytes(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.type = kind
    path = with_header(tmp_path / "a.tar", info, size=b"\xff" * 10 + b"\xfc\x00")  # -1024, which leads back
    with pytest.raises(DataError, match=r"cannot read .*a\.tar: (member a\.png has -1,024 bytes|a header of less)"):
        find_images(path)


def test_a_member_beyond_the_end(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.size = 1 << 40
    with pytest.raises(DataError, match=r"cannot read .*a\.tar: unexpected end of data"):
        find_images(with_header(tmp_path / "a.tar", info))


def test_a_member_that_is_too_large(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.size = 1 << 40
    images = find_images(with_header(tmp_path / "a.tar", info, hole=1 << 40))
    with pytest.raises(DataError, match=r"a\.tar/a\.png: it has 1,099,512 MB, and --max-file-size is 512 MB"):
        images.read(0)
    small = find_images(write_tar(tmp_path / "b.tar", {"a.png": bytes(1_000_001)}), bounds=Bounds(max_file_size=1))
    with pytest.raises(DataError, match="--max-file-size is 1 MB"):
        small.read(0)


def test_a_caption_that_is_none(tmp_path: Path) -> None:
    long = b'{"text": "' + b"a" * 16_000_000 + b'"}'
    for suffix in ("txt", "json"):
        images = find_images(write_tar(tmp_path / f"{suffix}.tar", {"a.png": png(0), f"a.{suffix}": long}))
        with pytest.raises(DataError, match=rf"the caption of .*{suffix}\.tar/a\.png: it has 16 MB; a caption"):
            images.captions(0)


@pytest.mark.parametrize("label", ["1000000", "1000000000", "1" + "0" * 20])
def test_a_class_that_is_no_class(label: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": png(0), "a.cls": label.encode()})
    with pytest.raises(DataError, match=rf"a\.tar/a\.cls is {label}; the classes of a data set are 0 to 999,999"):
        find_images(path)


def test_the_largest_class(tmp_path: Path) -> None:
    images = find_images(write_tar(tmp_path / "a.tar", {"a.png": png(0), "a.cls": b"\xef\xbb\xbf999999\n"}))
    assert images.labels.tolist() == [999_999]
    assert len(images.classes) == 1_000_000


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_a_sparse_member_is_refused_by_name(form: str, tmp_path: Path) -> None:
    (tmp_path / "hole.png").write_bytes(b"")
    os.truncate(tmp_path / "hole.png", 1 << 20)
    how = ["tar", "--sparse", f"--format={'gnu' if form == 'gnu' else 'posix'}", "-cf", "a.tar", "hole.png"]
    made = subprocess.run(how, cwd=tmp_path, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no GNU tar: {made.stderr}")
    with tarfile.open(tmp_path / "a.tar") as archive:
        if not archive.getmembers()[0].issparse():
            pytest.skip("this file system has no holes")
    with pytest.raises(DataError, match=r"a\.tar/hole\.png is a sparse member"):
        find_images(tmp_path / "a.tar")


def test_tars_of_samples_are_bounded_too(tmp_path: Path) -> None:
    info = tarfile.TarInfo("000000.png")
    info.size = 1 << 40
    with_header(tmp_path / "samples-00000.tar", info, hole=1 << 40)
    tars = SampleTars(tmp_path, plan=tmp_path / "plan.jsonl", lock=tmp_path / ".lock")
    assert list(tars.names()) == ["000000.png"]
    with pytest.raises(DataError, match="--max-file-size"):
        tars.read("000000.png")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("000000.png"))
    (tmp_path / "samples-00000.tar").write_bytes(buffer.getvalue())  # which could be a bomb
    with pytest.raises(DataError, match=r"cannot read .*samples-00000\.tar"):
        list(tars.names())
