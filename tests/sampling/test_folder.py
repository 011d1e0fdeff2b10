"""The folder of samples: which files, what continues it, what is refused, and what --force may remove."""

import errno
import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock, Timeout
from PIL import Image

from dmp_cli.errors import ConfigError, DMPError
from dmp_cli.sampling.folder import SampleFolder
from dmp_cli.sampling.folder_writer import encode_png
from dmp_cli.sampling.part import Part
from dmp_cli.sampling.plan import Plan
from dmp_cli.sampling.sampler import chunks

from .conftest import ABOUT, CONFIG, ORIGIN, claim, names_in, pixels_of


def test_exactly_these_files(filled):
    filled.draw_grid(Plan(CONFIG), rows=2, columns=3)
    images = [f"{index:06d}.png" for index in range(7)]
    records = ["SHA256SUMS", "SHA256SUMS.records"]
    assert names_in(filled.path) == [".lock", *images, *records, "grid.png", "samples.json"]
    about = json.loads((filled.path / "samples.json").read_text())
    assert about == {"num_images": 7, "made": ABOUT, "origin": ORIGIN}
    assert filled.recorded() == about


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_lossless(filled, channels):
    filled.write({8: pixels_of(3, channels)})
    read = np.asarray(Image.open(filled.image_path(8)))
    assert np.array_equal(read.reshape(8, 8, channels), pixels_of(3, channels))
    assert encode_png(pixels_of(3, channels)) == filled.image_path(8).read_bytes()


def test_images_that_are_there_stay_as_they_are(filled):
    filled.write({6: pixels_of(100), 7: pixels_of(7)})
    for index in (6, 7):
        assert np.array_equal(np.asarray(Image.open(filled.image_path(index))), pixels_of(index))


def test_six_digits_or_more(tmp_path):
    folder = SampleFolder(tmp_path)
    assert folder.image_path(12).name == "000012.png"
    assert folder.image_path(1_234_567).name == "1234567.png"


def test_missing_chunks(filled):
    plan = chunks(CONFIG)
    assert plan == [range(3), range(3, 6), range(6, 9)]
    assert filled.missing(plan, num_images=7) == []
    filled.image_path(4).unlink()
    assert filled.missing(plan, num_images=7) == [range(3, 6)]
    assert filled.missing(plan, num_images=4) == []  # image 4 is not asked for
    assert filled.missing(plan, num_images=8) == [range(3, 6), range(6, 9)]
    filled.image_path(6).unlink()
    assert filled.missing(plan, num_images=7) == [range(3, 6), range(6, 9)]


def test_the_same_settings_continue(filled):
    for number in (7, 3, 12):
        again, moved = claim(filled.path, num_images=number)
        assert moved == []
        assert len(names_in(filled.path)) == 11
    assert again.recorded()["num_images"] == 12


def test_other_settings_are_refused(filled):
    before = {name: (filled.path / name).read_bytes() for name in names_in(filled.path)}
    for changes, told in (
        ({"patch": None}, "patch abc, now none"),
        ({"patch": "abd", "sample": {**ABOUT["sample"], "seed": 1}}, "seed 0, now 1; patch abc, now abd"),
    ):
        about = {**ABOUT, **changes}
        with pytest.raises(ConfigError, match=f"made with other settings: {told}") as caught:
            claim(filled.path, about)
        assert "--force" in caught.value.hint
    assert {name: (filled.path / name).read_bytes() for name in names_in(filled.path)} == before


def test_what_has_moved_is_told_and_the_first_origin_kept(filled):
    elsewhere = {"device": "cuda", "versions": {"dmp": "1"}}
    _, moved = claim(filled.path, origin=elsewhere)
    assert moved == ["device"]
    assert filled.recorded()["origin"] == ORIGIN


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        claim(tmp_path)
    assert names_in(tmp_path) == ["mine.txt"]


def test_force_removes_only_its_own_files(filled):
    filled.draw_grid(Plan(CONFIG), rows=1, columns=1)
    filled.write({1_000_000: pixels_of(0)})
    mine = ["000001-copy.png", "000001.jpg", "00001.png", "grid.png.bak", "notes.txt", "sub"]
    for name in mine[:-1]:
        (filled.path / name).write_bytes(b"mine")
    (filled.path / "sub").mkdir()
    (filled.path / "sub" / "000001.png").write_bytes(b"mine")
    other = {**ABOUT, "patch": None}
    _, moved = claim(filled.path, other, origin={"device": "cuda"}, num_images=2, force=True)
    assert moved == []
    assert names_in(filled.path) == sorted([*mine, ".lock", "SHA256SUMS.records", "samples.json"])
    assert names_in(filled.path / "sub") == ["000001.png"]
    assert filled.recorded() == {"num_images": 2, "made": other, "origin": {"device": "cuda"}}


@pytest.mark.parametrize("text", ["", "{", "\x00"])
def test_a_damaged_record_is_refused_unless_forced(filled, text):
    (filled.path / "samples.json").write_text(text)
    with pytest.raises(ConfigError, match=r"samples\.json is not valid JSON") as caught:
        claim(filled.path)
    assert "--force" in caught.value.hint
    claim(filled.path, force=True)
    assert filled.recorded() == {"num_images": 7, "made": ABOUT, "origin": ORIGIN}


def test_a_record_of_another_tool_is_refused(filled):
    (filled.path / "samples.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"samples\.json was not written by this tool"):
        claim(filled.path)


def test_no_record(tmp_path):
    assert SampleFolder(tmp_path / "missing").recorded() is None


def test_half_written_images_are_removed(filled):
    for name in (".000003.png.partial", ".000012.png.partial", ".samples.npz.partial"):
        (filled.path / name).write_bytes(b"half")
    claim(filled.path)
    halves = [name for name in names_in(filled.path) if name.endswith("partial")]
    assert halves == [".000003.png.partial", ".000012.png.partial"]  # another part may be writing them
    filled.remove_halves(Part(1, 2), batch_size=3)  # images 3 to 5, 9 to 11, ...
    assert [name for name in names_in(filled.path) if name.endswith("partial")] == [".000012.png.partial"]
    filled.remove_halves(Part(), batch_size=3)
    assert not [name for name in names_in(filled.path) if name.endswith("partial")]


def test_a_full_disk_leaves_no_half_image(filled, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DMPError, match=r"cannot write .*/000009\.png: no space left on the disk"):
        filled.write({9: pixels_of(9)})
    assert len(names_in(filled.path)) == 11


def test_parts_share_the_chunks_and_keep_sums_of_their_own(tmp_path):
    folder, _ = claim(tmp_path / "out")
    plan = [range(start, start + 3) for start in range(0, 9, 3)]
    parts = [Part(number, 2) for number in range(2)]
    assert [part.of(plan) for part in parts] == [[range(3), range(6, 9)], [range(3, 6)]]
    for part in parts:
        with folder.writer(part) as write:
            for chunk in part.of(plan):
                write({index: pixels_of(index) for index in chunk})
    sums = {name for name in names_in(folder.path) if "SUMS" in name}
    assert sums == {"SHA256SUMS.1-of-2", "SHA256SUMS.2-of-2", "SHA256SUMS.records"}
    assert folder.missing(plan, num_images=9) == []
    assert folder.verify(9) == []


def test_errors_of_the_writer_come_up(filled, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DMPError, match="no space left"), filled.writer() as write:  # noqa: PT012
        for index in range(8, 14):
            write({index: pixels_of(index)})


def test_the_plan_is_kept_as_the_longest(filled):
    for text, kept in (("a\n", "a\n"), ("a\nb\n", "a\nb\n"), ("a\n", "a\nb\n")):
        filled.write_plan(lambda text=text: [text])
        assert (filled.path / "plan.jsonl").read_text() == kept


WRITERS = {
    "grid.png": lambda folder: folder.draw_grid(Plan(CONFIG), rows=2, columns=3),
    "plan.jsonl": lambda folder: folder.write_plan(lambda: [Plan(CONFIG).text(8)]),
    "samples.json": lambda folder: claim(folder.path, num_images=8),
    "samples.npz": lambda folder: folder.write_npz(7, None),
    "samples-00000.tar": lambda folder: folder.pack(7),
}


@pytest.mark.parametrize("name", WRITERS)
def test_no_part_claims_the_folder_while_another_writes_a_shared_file(filled, monkeypatch, name):
    """A claim removes half-written shared files, so it has to wait until they are renamed."""
    filled.write_plan(lambda: [Plan(CONFIG).text(7)])
    replace, claims = os.replace, []

    def claim_before_the_rename(partial, target):
        if Path(target).name == name and not claims:
            claims.append(target)
            with monkeypatch.context() as impatient:
                impatient.setattr("dmp_cli.sampling.folder_locks.FileLock", functools.partial(FileLock, timeout=0))
                with pytest.raises(Timeout):
                    claim(filled.path)
            assert Path(partial).exists()
        replace(partial, target)

    monkeypatch.setattr(os, "replace", claim_before_the_rename)
    WRITERS[name](SampleFolder(filled.path, tar=True))
    assert len(claims) == 1
    assert name in names_in(filled.path)
    assert not [left for left in names_in(filled.path) if left.endswith(".partial")]


def test_a_part_that_begins_while_another_writes_its_first_files(tmp_path, monkeypatch):
    """The plan may be seen in a listing that began before samples.json was there."""
    folder, _ = claim(tmp_path)
    folder.write_plan(lambda: ["a\n"])
    listed = [path for path in tmp_path.iterdir() if path.name != "samples.json"]
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(listed))
    assert claim(tmp_path)[1] == []
