"""No member of a shard is left out in silence: keys with dots, cut tars, captions that are null."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmp_cli.data.folder import find_images
from dmp_cli.data.source import ImageSource
from dmp_cli.errors import DataError
from tests.zoo.shards import cut_between_members, dali_index, img2dataset_members, write_tar


def names(source: ImageSource) -> list[str]:
    return [source.name(index).partition(".tar/")[2] for index in range(len(source))]


def test_images_with_dots_in_their_names_are_samples_of_their_own(tmp_path: Path) -> None:
    members = {
        "a.jpg": b"a",
        "22.05.jpg": b"05",
        "22.05.txt": b"of 05",
        "22.05.cls": b"1",
        "a.cls": b"0",
        "22.06.JPG": b"06",
        "22.06.cls": b"2",
        "235342 Track 2.0 (Clean).jpg": b"track",
        "235342 Track 2.0 (Clean).cls": b"3",
        "v1.2/c.jpg": b"c",
        "v1.2/c.cls": b"0",
    }
    source = find_images(write_tar(tmp_path / "s.tar", members))
    assert names(source) == ["a.jpg", "22.05.jpg", "22.06.JPG", "235342 Track 2.0 (Clean).jpg", "v1.2/c.jpg"]
    assert [source.read(index) for index in range(5)] == [b"a", b"05", b"06", b"track", b"c"]
    assert source.labels.tolist() == [0, 1, 2, 3, 0]
    assert source.captioned.tolist() == [False, True, False, False, False]
    assert source.caption(1) == "of 05"
    assert source.passed_over == {}
    assert names(find_images(tmp_path / "s.tar", rules=1)) == ["a.jpg", "v1.2/c.jpg"]  # as earlier runs go on


def test_one_of_several_images_of_a_key_is_counted(tmp_path: Path) -> None:
    members = {"a.input.jpg": b"1", "a.target.jpg": b"2", "b.jpg": b"3", "b.mask.png": b"4", "c.jxl": b"5"}
    source = find_images(write_tar(tmp_path / "s.tar", members))
    assert names(source) == ["b.jpg"]  # its mask goes with it
    assert source.passed_over == {".jpg": 2, ".jxl": 1}
    only = write_tar(tmp_path / "only.tar", {"a.input.jpg": b"1", "a.target.jpg": b"2"})
    with pytest.raises(DataError, match=r"no images in .*; 2 files passed over: 2 .jpg, such as a.input.jpg"):
        find_images(only)


def test_a_tar_that_is_cut_between_two_members(tmp_path: Path) -> None:
    members = {f"{key}.{kind}": b"x" * 700 for key in "abc" for kind in ("png", "txt")}
    path = write_tar(tmp_path / "s.tar", members)
    index = dali_index(path)
    assert len(find_images(path)) == 3
    cut_between_members(path, members=4)
    told = r"s.tar is cut short: it ends after 2 of 3 samples without the zeros that end a tar"
    with pytest.raises(DataError, match=told):
        find_images(path)
    index.unlink()
    with pytest.raises(DataError, match=r"cut short: it ends without the zeros") as caught:
        find_images(path)
    assert caught.value.hint == "Fetch or make it again; where it is whole, write its index beside it with wds2idx."
    assert len(find_images(path, rules=1)) == 2  # earlier runs go on
    dali_index(path)  # of a tool that leaves out the end: the index says that this is all
    assert len(find_images(path)) == 2
    path.write_bytes(path.read_bytes() + bytes(512))  # one block of zeros is an end
    (tmp_path / "s.idx").unlink()
    assert len(find_images(path)) == 2


@pytest.mark.parametrize("place", [0, 39])
def test_a_null_caption_is_none_wherever_it_stands(tmp_path: Path, place: int) -> None:
    members: dict[str, bytes] = {}
    for number in range(40):
        members |= img2dataset_members(f"{number:09d}", b"x", None if number == place else f"caption {number}")
    source = find_images(write_tar(tmp_path / "s.tar", members))
    assert source.captioned.tolist() == [number != place for number in range(40)]
    assert not source.has_captions
    assert source.missing_captions() == [f"{tmp_path}/s.tar/{place:09d}.jpg"]
    with pytest.raises(DataError, match="has no caption"):
        source.caption(place)
    assert source.caption(20) == "caption 20"


def test_captions_of_any_kind_are_said_for_what_they_are(tmp_path: Path) -> None:
    contents = [{"caption": 3}, {"width": 3}, {"text": None, "caption": "b"}, {"text": ["one ", "two"]}, {"text": []}]
    members: dict[str, bytes] = {}
    for number, content in enumerate(contents):
        members |= {f"{number}.jpg": b"x", f"{number}.json": json.dumps(content).encode()}
    source = find_images(write_tar(tmp_path / "s.tar", members))
    assert source.captioned.tolist() == [True, False, True, True, False]
    with pytest.raises(DataError, match=r"the caption of .*/0.jpg: caption is a number, 3, not text"):
        source.caption(0)
    assert source.captions(2) == ["b"]
    assert source.captions(3) == ["one", "two"]
