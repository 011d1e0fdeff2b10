"""dmp_cli.data.own_samples: a folder that ``dmp sample`` filled is a data set by its own records."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dmp_cli.data import ImageSource, ShardImages, decode, find_images
from dmp_cli.data.own_samples import OwnSamples
from dmp_cli.errors import DataError
from tests.builders import write_images

from .sample_folders import small_tars, write_samples
from .shard_files import png


def pixels_of(source: ImageSource) -> list[np.ndarray]:
    return [np.asarray(decode(source.read(i), channels=3, name=source.name(i))) for i in range(len(source))]


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_images_are_the_numbered_ones_with_the_classes_of_the_plan(tmp_path: Path) -> None:
    source = find_images(write_samples(tmp_path / "own"))
    assert isinstance(source, OwnSamples)
    assert [Path(source.name(index)).name for index in range(len(source))] == [f"{i:06d}.png" for i in range(6)]
    assert (source.labels.tolist(), source.classes) == ([0, 1, 2, 3, 0, 1], ["0", "1", "2", "3"])
    assert source.rules == 3
    assert not source.has_captions
    for index, pixels in enumerate(pixels_of(pickle.loads(pickle.dumps(source)))):
        expected = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
        assert np.array_equal(pixels, expected)
    before = find_images(tmp_path / "own", rules=2)  # as a run of before goes on: with the preview, without classes
    assert (len(before), before.classes, before.rules) == (7, [], 2)


def test_tars_and_zips_of_the_same_samples_are_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tars(monkeypatch, 4)
    flat, tars = (find_images(write_samples(tmp_path / name, 6, tar=name == "tars")) for name in ("flat", "tars"))
    assert sorted(path.name for path in (tmp_path / "tars").glob("*.tar")) == ["samples-00000.tar", "samples-00001.tar"]
    shutil.make_archive(str(tmp_path / "top"), "zip", tmp_path / "flat")
    shutil.make_archive(str(tmp_path / "within"), "zip", tmp_path, "flat")
    (tmp_path / "tars" / "000001.png").write_bytes(flat.read(1))  # as a kill leaves an image: in the tar, and beside it
    others = [tars, *(find_images(tmp_path / name) for name in ("top.zip", "within.zip", "tars"))]
    for other in others:
        assert isinstance(other, OwnSamples)
        assert other.fingerprint == flat.fingerprint
        assert other.labels.tolist() == flat.labels.tolist()
        assert np.array_equal(other.spans, flat.spans)
        assert all(np.array_equal(*pair) for pair in zip(pixels_of(other), pixels_of(flat), strict=True))
    shards = find_images(tmp_path / "tars" / "samples-*.tar")  # named one by one they are shards as any others
    assert isinstance(shards, ShardImages)
    assert shards.labels.tolist() == flat.labels.tolist()
    assert [others[0].stamp(0).size, flat.stamp(0).size] == [len(flat.read(0))] * 2
    assert others[1].stamp(0).crc is not None


def test_a_class_keeps_its_index_however_few_were_drawn(tmp_path: Path) -> None:
    source = find_images(write_samples(tmp_path / "own", classes=(2, 1)))
    assert source.labels.tolist() == [2, 1, 2, 1, 2, 1]
    assert source.classes == ["0", "1", "2", "3"]
    (tmp_path / "four.txt").write_text("cat\ndog\nfox\nowl")
    assert find_images(tmp_path / "own", class_names=tmp_path / "four.txt").classes == ["cat", "dog", "fox", "owl"]
    (tmp_path / "two.txt").write_text("dog\nfox")
    with pytest.raises(DataError, match=r"names 2 classes, but .*own has 4"):
        find_images(tmp_path / "own", class_names=tmp_path / "two.txt")
    named = find_images(write_samples(tmp_path / "named", classes=(2,), names=["cat", "dog", "fox", "owl"]))
    assert (named.labels.tolist(), named.classes) == ([2] * 6, ["cat", "dog", "fox", "owl"])


def test_captions_are_the_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_tars(monkeypatch, 4)
    texts = (" a red fox", "", "ein Füchslein")
    flat, tars = (find_images(write_samples(tmp_path / n, 6, tar=n == "t", texts=texts)) for n in ("f", "t"))
    shards = find_images(tmp_path / "t" / "samples-*.tar")
    for source in (flat, tars, shards):
        assert source.has_captions
        assert source.classes == []
        assert [source.caption(i) for i in range(6)] == ["a red fox", "", "ein Füchslein"] * 2
    assert flat.fingerprint == tars.fingerprint
    others = find_images(write_samples(tmp_path / "o", 6, texts=("a", "", "ein Füchslein")))
    assert others.fingerprint != flat.fingerprint


def test_samples_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    def refuse(message: str) -> None:
        with pytest.raises(DataError, match=message) as refused:
            find_images(copy)
        assert "\n" not in refused.value.message

    own = write_samples(tmp_path / "own")
    lines = (own / "plan.jsonl").read_text().splitlines(keepends=True)
    damage = {
        "an image is missing": ("000003.png", None, "holds 5 of its 6 samples: 000003.png is missing"),
        "a photo lies there": ("cat.jpg", "x", "none of its 6 samples, such as cat.jpg"),
        "one too many": ("000006.png", "x", "none of its 6 samples, such as 000006.png"),
        "no plan": ("plan.jsonl", None, "has no plan.jsonl"),
        "a short plan": ("plan.jsonl", "".join(lines[:4]), "ends after 4 of 6 samples"),
        "another order": ("plan.jsonl", "".join(lines[::-1]), "line 1 is not about sample 0"),
        "no json": ("plan.jsonl", lines[0] + "{", "line 2 is not valid JSON"),
        "no class": ("plan.jsonl", lines[0] + '{"index": 1}', "line 2 has other fields than the first"),
        "a word": ("plan.jsonl", lines[0].replace('"class": 0', '"class": "a"'), "class 'a' is not the number"),
        "a class of another": ("plan.jsonl", "".join(lines).replace('"class": 3', '"class": 9'), "has 4 classes"),
        "no record": ("samples.json", None, "without their samples.json"),
        "half a record": ("samples.json", '{"num_images": 6, "ma', "samples.json is not valid JSON"),
        "a forged record": ("samples.json", '{"num_images": -6, "made": {"sample": {}}}', "num_images"),
    }
    for name, (file, content, message) in damage.items():
        copy = tmp_path / name
        shutil.copytree(own, copy)
        (copy / file).unlink(missing_ok=True) if content is None else (copy / file).write_text(content)
        if file.endswith((".json", ".jsonl")) and content is not None:
            refuse(f"{file} was changed after it was written")
        if file != "samples.json" or content is not None:
            (copy / "SHA256SUMS.records").unlink()  # folders of earlier versions have none
        refuse(message)


def test_a_damaged_tar_is_named(tmp_path: Path) -> None:
    own = write_samples(tmp_path / "own", tar=True)
    data = (own / "samples-00000.tar").read_bytes()
    (own / "samples-00000.tar").write_bytes(b"\xff" * 512 + data[512:])
    with pytest.raises(DataError, match=r"samples-00000.tar"):
        find_images(own)


def test_records_of_other_tools_change_nothing(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", classes=0)
    before = find_images(images)
    (images / "grid.png").write_bytes(png(0))  # a picture as any other
    with_grid = find_images(images)
    for content in ('{"made": "by hand"}', "[1]", "not JSON", '{"made": {"by": "hand"}, "num_images": 3}', "\x00"):
        (images / "samples.json").write_text(content)
        source = find_images(images)
        assert (len(source), source.fingerprint, source.rules) == (len(before) + 1, with_grid.fingerprint, 2)


def test_previews_in_class_folders_are_no_images(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_samples(tmp_path / "data" / name, 4)
    source = find_images(tmp_path / "data")
    assert (len(source), source.classes, source.rules) == (8, ["cat", "dog"], 3)
    assert len(find_images(tmp_path / "data", rules=2)) == 10
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in sorted((tmp_path / "data").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path))
    assert find_images(tmp_path / "data.zip").fingerprint == source.fingerprint


def test_the_same_images_of_other_classes_are_other_data(tmp_path: Path) -> None:
    one, other = (find_images(write_samples(tmp_path / str(c[0]), classes=c)) for c in ((0, 1), (2, 3)))
    assert [one.read(i) for i in range(len(one))] == [other.read(i) for i in range(len(other))]
    assert one.classes == other.classes
    assert one.fingerprint != other.fingerprint
