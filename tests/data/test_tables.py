"""Tables as data: folders that ``datasets`` reads, parquet files and saved data sets."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmp_cli.config import absolute_place, address, place_name, split_of, table_name
from dmp_cli.data import Bounds, Columns, Elsewhere, ImageSource, find_images
from dmp_cli.errors import DataError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


def png(value: int, size: int = 8) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def rows(count: int = 6, **more: Any) -> dict[str, list[Any]]:
    return {"image": [{"bytes": png(10 * row), "path": f"{row}.png"} for row in range(count)], **more}


def features(**more: Any) -> Any:
    return datasets.Features({"image": datasets.Image(), **more})


def parquet(path: Path, content: dict[str, list[Any]], kinds: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(content, features=kinds).to_parquet(str(path))
    return path


def find(path: object, **columns: str) -> ImageSource:
    return find_images(str(path), elsewhere=Elsewhere(Columns(**columns)))


def test_a_parquet_file_with_captions_and_classes(tmp_path: Path) -> None:
    kinds = features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["cat", "dog"]))
    file = parquet(
        tmp_path / "a.parquet", rows(text=[" one ", "two", "", None, "5", "6"], label=[0, 1, 1, 0, 0, 1]), kinds
    )
    for path in (file, f"hf:{file}", f"hf:{file}:train"):
        images = find(path)
        assert len(images) == 6
        assert images.classes == ["cat", "dog"]
        assert images.labels.tolist() == [0, 1, 1, 0, 0, 1]
        assert images.captioned.tolist() == [True, True, False, False, True, True]
        assert images.caption(0) == "one"
        assert images.read(3) == png(30)
        assert images.stamp(3).size == len(png(30))
        assert images.name(3).endswith("a.parquet/3.png" if ":train" not in str(path) else ":train/3.png")
    again = pickle.loads(pickle.dumps(images))  # as it goes to worker processes
    assert again.read(5) == png(50)
    with pytest.raises(DataError, match=r"2\.png has no caption"):
        images.captions(2)
    moved = parquet(
        tmp_path / "b" / "other.parquet", rows(text=["one", "two", "", None, "5", "6"], label=[0] * 6), kinds
    )
    assert find(moved).fingerprint == images.fingerprint
    changed = parquet(tmp_path / "b" / "c.parquet", rows(text=["1", "two", "", None, "5", "6"], label=[0] * 6), kinds)
    assert find(changed).fingerprint != images.fingerprint


def test_splits_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for split, count in (("train", 3), ("test", 2)):
        parquet(folder / "data" / f"{split}-00000-of-00001.parquet", rows(count), features())
    assert len(find(f"hf:{folder}")) == 3
    assert len(find(f"hf:{folder}:test")) == 2
    with pytest.raises(DataError, match="does not say a split other; it has train, test"):
        find(f"hf:{folder}:other")
    saved = tmp_path / "saved"
    datasets.Dataset.from_dict(rows(4), features=features()).select([3, 1]).save_to_disk(str(saved))
    images = find(f"hf:{saved}")
    assert [images.read(0), images.read(1)] == [png(30), png(10)]


def test_a_folder_of_images_with_metadata(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for row in range(3):
        (folder / f"{row}.png").write_bytes(png(row))
    lines = [f'{{"file_name": "{row}.png", "prompt": "number {row}"}}\n' for row in range(3)]
    (folder / "metadata.jsonl").write_text("".join(lines))
    images = find(f"hf:{folder}")
    assert [images.caption(row) for row in range(3)] == ["number 0", "number 1", "number 2"]
    assert images.read(2) == png(2)
    assert images.stamp(2).size == len(png(2))


def test_columns_are_found_or_named(tmp_path: Path) -> None:
    kinds = datasets.Features({
        "before": datasets.Image(), "after": datasets.Image(), "kind": datasets.Value("string"),
        "said": datasets.Sequence(datasets.Value("string")), "number": datasets.Value("int64"),
    })  # fmt: skip
    pictures = rows(2)["image"]
    content = {
        "before": pictures,
        "after": pictures[::-1],
        "kind": ["b", "a"],
        "said": [["x", "y"], []],
        "number": [0, 4],
    }
    file = parquet(tmp_path / "pairs.parquet", content, kinds)
    with pytest.raises(DataError, match="several columns for it: before, after") as told:
        find(file)
    assert "--image-column" in str(told.value.hint)
    images = find(file, image="after", caption="said", label="kind")
    assert images.read(0) == png(10)
    assert images.captions(0) == ["x", "y"]
    assert not images.captioned[1]
    assert (images.classes, images.labels.tolist()) == (["a", "b"], [1, 0])
    numbered = find(file, image="after", label="number", caption="none")
    assert (len(numbered.classes), numbered.labels.tolist()) == (5, [0, 4])
    assert not find(file, image="before").classes  # neither is called a label
    for columns, said in (
        ({"image": "kind"}, "--image-column kind: the column of .* holds string"),
        ({"image": "missing"}, "has no such column; it has before, after, kind, said, number"),
        ({"image": "after", "caption": "number"}, "--caption-column number: the column of .* holds int64"),
    ):
        with pytest.raises(DataError, match=said):
            find(file, **columns)
    names = tmp_path / "classes.txt"
    names.write_text("b\na\n")
    how = Elsewhere(Columns("after", None, "kind"))
    assert find_images(file, class_names=names, elsewhere=how).labels.tolist() == [0, 1]
    assert find_images(file, recorded=("b", "a"), elsewhere=how).classes == ["b", "a"]


def test_plain_bytes_are_images_too(tmp_path: Path) -> None:
    content = {"jpg": [png(1), png(2)], "txt": ["one", "two"]}
    kinds = datasets.Features({"jpg": datasets.Value("binary"), "txt": datasets.Value("string")})
    images = find(parquet(tmp_path / "bytes.parquet", content, kinds))
    assert images.read(1) == png(2)
    assert images.caption(1) == "two"
    assert images.name(1).endswith("row-000001")


def test_what_a_stranger_s_table_may_not_do(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(7))
    entries = [{"bytes": None, "path": str(tmp_path / "secret.png")}, {"bytes": png(1), "path": None}]
    storage = datasets.Features({"image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    plain = datasets.Dataset.from_dict({"image": entries}, features=storage).cast_column("image", datasets.Image())
    folder = tmp_path / "table"
    folder.mkdir()
    plain.to_parquet(str(folder / "t.parquet"))
    images = find(folder / "t.parquet")
    if images.stamp(0).size == 0:  # datasets has not put the file into the table itself
        with pytest.raises(DataError, match="not within the data set"):
            images.read(0)
    small = find_images(folder / "t.parquet", bounds=Bounds(max_file_size=0))
    with pytest.raises(DataError, match="--max-file-size"):
        small.read(1)
    empty = parquet(folder / "n.parquet", {"image": [None, {"bytes": png(1), "path": None}]}, features())
    with pytest.raises(DataError, match="row 0 has no image"):
        find(empty)


def test_what_is_not_there_or_no_table(tmp_path: Path) -> None:
    for path, said in (
        ("hf:ann/photos", r"--download"),
        (f"hf:{tmp_path}/nothing", "there is no"),
        (tmp_path / "no.parquet", "there is no"),
    ):
        with pytest.raises(DataError) as told:
            find(path)
        assert said in f"{told.value.message} {told.value.hint}"
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="datasets cannot read it"):
        find(tmp_path / "bad.parquet")
    texts = parquet(tmp_path / "t.parquet", {"text": ["a"]}, datasets.Features({"text": datasets.Value("string")}))
    with pytest.raises(DataError, match="no column with images; it has text"):
        find(texts)


def test_how_places_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").mkdir()
    (tmp_path / "photos").mkdir()
    assert split_of("ann/photos:test") == ("ann/photos", "test")
    assert split_of("a:b") == ("a:b", None)
    assert split_of("ann/photos") == ("ann/photos", None)
    assert table_name("hf:ann/photos") == "ann/photos"
    assert table_name("https://x/y.parquet") is None
    assert table_name("photos") is None
    assert address(Path("https://host/a{0..1}.tar")) == "https://host/a{0..1}.tar"
    assert address("s3://bucket/x.tar") == "s3://bucket/x.tar"
    assert address("photos") is None
    assert address("C:/photos") is None
    assert absolute_place("hf:photos:test") == f"hf:{tmp_path}/photos:test"
    assert absolute_place("hf:ann/photos") == "hf:ann/photos"
    assert absolute_place(Path("s3://bucket/x.tar")) == "s3://bucket/x.tar"
    assert absolute_place("photos") == str(tmp_path / "photos")
    assert place_name(Path("hf:ann/photos:test")) == "ann/photos:test"
    assert place_name(Path("hf:photos")) == "photos"
    assert place_name(Path("/somewhere/photos")) == "photos"
