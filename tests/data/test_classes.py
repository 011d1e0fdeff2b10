"""Which class folder has which index, in folders, zips and shards; and files that say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmp_cli.data.classes import describe_classes
from dmp_cli.data.folder import find_images
from dmp_cli.errors import DataError

from .shard_files import png, write_tar
from .test_folder import fill, zipped

NUMBERS = [str(number) for number in range(12)]


def mapping(path: Path, **how: object) -> dict[str, str]:
    """Name of an image's class folder -> the name that its label has."""
    source = find_images(path, **how)  # type: ignore[arg-type]
    return {source.name(k).split("/")[-2]: source.classes[label] for k, label in enumerate(source.labels.tolist())}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_numbers_are_in_the_order_of_numbers(tmp_path: Path, kind: str) -> None:
    path = fill(tmp_path / "data", *[f"{name}/{name}.png" for name in NUMBERS])
    path = zipped(path, tmp_path / "data.zip") if kind == "zip" else path
    source = find_images(path)
    assert source.classes == NUMBERS
    # the images themselves stay in the order that they had, which latent stores and runs rely on: 0, 1, 10, 11, 2, ...
    assert source.labels.tolist() == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    before = find_images(path, rules=1)
    assert before.classes == sorted(NUMBERS)
    assert before.labels.tolist() == list(range(12))
    assert before.fingerprint == source.fingerprint
    assert [before.name(k) for k in range(12)] == [source.name(k) for k in range(12)]
    again = find_images(path, recorded=tuple(before.classes))
    assert (again.classes, again.labels.tolist()) == (before.classes, before.labels.tolist())


def test_numbers_need_not_begin_at_0_and_names_stay_as_text(tmp_path: Path) -> None:
    numbers = find_images(fill(tmp_path / "a", "001/x.png", "10/x.png", "9/x.png", "100/x.png"))
    assert numbers.classes == ["001", "9", "10", "100"]
    assert numbers.labels.tolist() == [0, 2, 3, 1]
    assert find_images(fill(tmp_path / "b", "10_fox/x.png", "9_cat/x.png")).classes == ["10_fox", "9_cat"]
    assert find_images(fill(tmp_path / "c", "10/x.png", "9/x.png", "b/x.png")).classes == ["10", "9", "b"]


@pytest.mark.parametrize("text", ["dog\ncat\r\nfox\n", "\ufeff1 dog\n2 cat\n3 fox\n", "2\tfox\n 0\tdog\n 1\tcat\n"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_file_says_the_order(tmp_path: Path, text: str, kind: str) -> None:
    path = fill(tmp_path / "data", "cat/1.png", "dog/1.png", "fox/1.png")
    (tmp_path / "names").write_text(text, encoding="utf-8")
    assert find_images(path).labels.tolist() == [0, 1, 2]
    assert find_images(path, class_names=tmp_path / "names").labels.tolist() == [1, 0, 2]
    bare = find_images(path).fingerprint
    (path / "classes.txt").write_text(text, encoding="utf-8")
    path = zipped(path, tmp_path / "data.zip", under="top/") if kind == "zip" else path
    source = find_images(path)
    assert (source.labels.tolist(), source.classes) == ([1, 0, 2], ["dog", "cat", "fox"])
    assert source.fingerprint == bare
    assert find_images(path, rules=1).classes == ["cat", "dog", "fox"]
    (tmp_path / "more").write_text("ape\ncat\ndog\nemu\nfox\n")  # of all classes; the data has some of them
    wider = find_images(path, class_names=tmp_path / "more")
    assert (wider.labels.tolist(), len(wider.classes)) == ([1, 2, 4], 5)


def test_a_file_that_does_not_fit(tmp_path: Path) -> None:
    path, names = fill(tmp_path / "data", "cat/1.png", "dog/1.png"), tmp_path / "names"
    for text, message in (
        ("cat\n", f"{names} does not name the class folder dog"),
        ("cat\ncat\ndog\n", f"{names} names cat twice"),
        ("\n", f"{names} names no class"),
    ):
        names.write_text(text)
        with pytest.raises(DataError, match=message):
            find_images(path, class_names=names)
    (path / "classes.txt").write_text("person\nbicycle\n")  # of another task, such as the boxes of YOLO
    assert find_images(path).classes == ["cat", "dog"]
    (path / "classes.txt").write_text("dog\n")
    with pytest.raises(DataError, match=r"classes.txt does not name the class folder cat"):
        find_images(path)
    with pytest.raises(DataError, match="this run was begun before classes could be named"):
        find_images(path, class_names=names, rules=1)


def test_names_in_another_unicode_form(tmp_path: Path) -> None:
    path = fill(tmp_path / "data", "cafe\u0301/1.png", "bar/1.png")  # as a Mac writes it
    (path / "classes.txt").write_text("caf\u00e9\nbar\n", encoding="utf-8")
    assert find_images(path).labels.tolist() == [1, 0]


def shard(path: Path, labels: dict[str, int]) -> Path:
    """A shard of one image in each class folder, with the class in its .cls."""
    members = {}
    for number, (folder, label) in enumerate(labels.items()):
        members |= {f"{folder}/{number}.png": png(number), f"{folder}/{number}.cls": f"{label}\n".encode()}
    return write_tar(path, members)


def test_shards_and_folders_number_their_classes_alike(tmp_path: Path) -> None:
    numbers = dict(zip(NUMBERS, range(12), strict=True))
    path = shard(tmp_path / "numbers.tar", numbers)
    folder = fill(tmp_path / "data", *[f"{name}/1.png" for name in NUMBERS])
    assert mapping(path) == mapping(folder) == {name: name for name in NUMBERS}
    named = find_images(shard(tmp_path / "named.tar", {"train/cat": 0, "train/dog": 1}))
    assert named.classes == ["cat", "dog"]
    some = find_images(shard(tmp_path / "some.tar", {"a": 3, "b": 1}))  # of four classes, which no order can tell
    assert (some.classes, some.labels.tolist()) == (["0", "b", "2", "a"], [3, 1])


def test_shards_numbered_otherwise_are_refused(tmp_path: Path) -> None:
    as_text = {name: label for label, name in enumerate(sorted(NUMBERS))}
    path = shard(tmp_path / "s" / "text.tar", as_text)
    with pytest.raises(
        DataError, match=r"folder 10 has class 2 in .cls, but 10 by the order of class folders"
    ) as caught:
        find_images(path)
    assert caught.value.hint == "Name the classes in the order of .cls with --class-names."
    names = tmp_path / "names"
    names.write_text("\n".join(sorted(NUMBERS)))
    assert mapping(path, class_names=names) == {name: name for name in NUMBERS}
    names.write_text("\n".join(NUMBERS))
    with pytest.raises(DataError, match=f"folder 10 has class 2 in .cls, but 10 by {names}"):
        find_images(path, class_names=names)
    assert find_images(path, rules=1).classes == NUMBERS  # as a run that was begun with them goes on
    (path.parent / "classes.txt").write_text("\n".join(sorted(NUMBERS)))
    assert find_images(path.parent).classes == sorted(NUMBERS)
    (path.parent / "classes.txt").write_text("0\n1\n")
    with pytest.raises(DataError, match=r"classes.txt names 2 classes, but .* has a class 11"):
        find_images(path)


def test_the_mapping_in_words() -> None:
    assert describe_classes(["cat", "dog"]) == "2 classes: 0 cat, 1 dog"
    assert describe_classes([f"n{k}" for k in range(1000)]).endswith("6 n6, 7 n7, …, 999 n999")
