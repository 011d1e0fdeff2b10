"""Where captions are found: names in any Unicode form, nested metadata files, zips of any tool, any suffix."""

from __future__ import annotations

import unicodedata
import zipfile
from pathlib import Path

import pytest

from dmp_cli.data.folder import find_images
from dmp_cli.errors import DataError
from tests.zoo.captioned import WORDS, json_lines, nested, of_a_mac, picture, zip_of


def captions(path: Path) -> dict[str, str]:
    """Last part of an image's name -> its first caption, for the images that have one."""
    source = find_images(path)
    found = [index for index in range(len(source)) if source.captioned[index]]
    return {"/".join(source.name(index).split("/")[-2:]): source.caption(index) for index in found}


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_names_of_a_mac(tmp_path: Path, beside: bool, kind: str) -> None:
    path = of_a_mac(tmp_path / "data", beside=beside)
    path = zip_of(path, tmp_path / "data.zip") if kind == "zip" else path
    source = find_images(path)
    assert sorted(source.caption(index) for index in range(3)) == sorted(f"of {word}" for word in WORDS)
    if beside:
        assert not find_images(path, rules=1).has_captions  # as earlier runs go on


def test_an_exact_name_comes_first_and_two_forms_are_not_guessed_between(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    for form, name in (("NFC", composed), ("NFD", decomposed)):
        picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(form)
    source = find_images(tmp_path)
    assert [source.caption(index) for index in range(2)] == ["NFD", "NFC"]
    angstrom = "\u212b"  # a third form, whose NFC is the letter \u00c5
    (tmp_path / "metadata.jsonl").write_text(
        json_lines({"file_name": f"{angstrom}.png", "text": "x"}), encoding="utf-8"
    )
    with pytest.raises(DataError, match="there is no image"):
        find_images(tmp_path)


@pytest.mark.parametrize("commas", [False, True])
@pytest.mark.parametrize("kind", ["folder", "zip", "zip of one folder", "zip with backslashes"])
def test_metadata_in_every_folder(tmp_path: Path, commas: bool, kind: str) -> None:
    path = nested(tmp_path / "data", commas=commas)
    bare = find_images(path).fingerprint
    if kind != "folder":
        under, backslashes = "top/" if "one folder" in kind else "", "backslashes" in kind
        path = zip_of(path, tmp_path / "data.zip", under=under, backslashes=backslashes)
    expected = {
        f"{place}/{name}": f'a {place}, "{name}"'
        for place, name in (("cat", "1.png"), ("fox", "1.png"), ("fox", "deep,er.png"))
    }
    source = find_images(path)
    assert captions(path) == expected
    assert source.classes == ["cat", "fox"]
    assert source.read(0) == (tmp_path / "data/cat/1.png").read_bytes()
    assert source.fingerprint == bare
    assert not find_images(tmp_path / "data", rules=1).has_captions


def test_the_innermost_file_counts(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        picture(tmp_path / name)
    rows = [{"file_name": name, "text": "outer"} for name in ("a/1.png", "a\\2.png", "./b/1.png")]
    (tmp_path / "metadata.jsonl").write_text(json_lines(*rows))
    (tmp_path / "a" / "metadata.jsonl").write_text(json_lines({"file_name": "1.png", "text": "inner"}))
    assert captions(tmp_path) == {"a/1.png": "inner", "a/2.png": "outer", "b/1.png": "outer"}
    (tmp_path / "b" / "metadata.csv").write_text("file_name,caption\n2.png,x\n")
    with pytest.raises(DataError, match=r"b/metadata.csv, line 2: there is no image 2.png"):
        find_images(tmp_path)
    (tmp_path / "b" / "metadata.csv").write_text("name,caption\n1.png,x\n")
    with pytest.raises(DataError, match=r"b/metadata.csv, line 2 lacks file_name or text"):
        find_images(tmp_path)


@pytest.mark.parametrize("inside", ["", "top/"])
def test_a_zip_of_one_flat_folder(tmp_path: Path, inside: str) -> None:
    for name in ("1.png", "2.png"):
        picture(tmp_path / "data" / name)
    rows = [{"file_name": ("" if inside else "top/") + name, "text": f"of {name}"} for name in ("1.png", "2.png")]
    path = zip_of(tmp_path / "data", tmp_path / "data.zip", under="top/")

    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{inside}metadata.jsonl", json_lines(*rows))
    assert captions(path) == {"top/1.png": "of 1.png", "top/2.png": "of 2.png"}


def test_metadata_outside_the_single_folder_of_a_zip(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png"):
        picture(tmp_path / "data" / "top" / name)
    rows = [{"file_name": f"top/{name}/1.png", "text": f"a {name}"} for name in ("cat", "dog")]
    (tmp_path / "data" / "metadata.jsonl").write_text(json_lines(*rows))
    path = zip_of(tmp_path / "data", tmp_path / "data.zip")
    assert captions(path) == {"cat/1.png": "a cat", "dog/1.png": "a dog"}


def test_suffixes_of_caption_files(tmp_path: Path) -> None:
    for number, suffixes in enumerate(([".TXT"], [".caption"], [".Caption"], [".caption", ".txt"], [".TXT", ".txt"])):
        picture(tmp_path / f"{number}.PNG", number)
        for suffix in suffixes:
            (tmp_path / f"{number}{suffix}").write_text(suffix)
    found = captions(tmp_path)
    assert [found[f"{tmp_path.name}/{number}.PNG"] for number in range(5)] == [
        ".TXT",
        ".caption",
        ".Caption",
        ".txt",
        ".txt",
    ]
    before = find_images(tmp_path, rules=1)
    assert before.captioned.tolist() == [False, False, False, True, True]
