"""Filling a text store: each caption encoded once, whoever works on it, whatever is interrupted."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmp_cli.errors import DMPError, StoppedError
from dmp_cli.texts import fill
from dmp_cli.texts.store import digest_of_caption

from .encoders import LetterEncoders, contents, make, store_of

CAPTIONS = [f"caption {n}" for n in range(11)]


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "_MOST", 4)  # 12 captions with the empty one: three files
    monkeypatch.setattr(fill, "_WAIT", 0.01)


def files_of(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name.endswith(".safetensors")}


def test_an_interruption_keeps_what_is_finished(tmp_path: Path) -> None:
    calls = Counter[str]()

    def stop() -> None:
        calls["stop"] += 1
        if calls["stop"] > 8:  # one before each file, and one before each caption
            raise StoppedError("enough", signal_number=15)

    encoders = LetterEncoders()
    with pytest.raises(StoppedError):
        make(store_of(tmp_path / "store", encoders), CAPTIONS, encoders, stop=stop)
    assert store_of(tmp_path / "store", encoders).missing(["", *CAPTIONS]) == CAPTIONS[3:]
    again = LetterEncoders()
    assert make(store_of(tmp_path / "store", again), CAPTIONS, again) == list(range(5, 13))
    assert again.asked == ["", *CAPTIONS[3:]]
    make(store_of(tmp_path / "other", encoders), CAPTIONS, encoders)
    assert contents(tmp_path / "store") == contents(tmp_path / "other")
    assert len(files_of(tmp_path / "store")) == 3
    assert make(store_of(tmp_path / "store", again), CAPTIONS, again) == []


def test_a_store_grows_by_what_it_lacks(tmp_path: Path) -> None:
    encoders = LetterEncoders()
    make(store_of(tmp_path / "store", encoders), CAPTIONS[:5], encoders)
    before = files_of(tmp_path / "store")
    encoders.asked.clear()
    store = store_of(tmp_path / "store", encoders)
    make(store, [*CAPTIONS[3:7], "more"], encoders)
    assert encoders.asked == ["", *CAPTIONS[5:7], "more"]
    assert before.items() <= files_of(tmp_path / "store").items()
    assert not store.missing([*CAPTIONS[:7], "more", ""])


@pytest.mark.parametrize("count", [1, 4])
def test_captions_that_a_damaged_file_no_longer_names_are_encoded_again(count: int, tmp_path: Path) -> None:
    encoders = LetterEncoders()
    make(store_of(tmp_path / "store", encoders), CAPTIONS, encoders)
    whole = files_of(tmp_path / "store")
    name = store_of(tmp_path / "store", encoders).name_for(["", *CAPTIONS[:3]])
    digests = b"".join(digest_of_caption(one) for one in ("", *CAPTIONS[:3]))
    assert whole[name].count(digests) == 1
    (tmp_path / "store" / name).write_bytes(whole[name].replace(digests, bytes(32 * count) + digests[32 * count :]))
    store = store_of(tmp_path / "store", encoders)
    make(store, CAPTIONS, encoders)  # ends
    assert not store.missing(["", *CAPTIONS])
    found = store.find("")
    assert found is not None
    assert torch.equal(found["states"], encoders.encode([""])["states"][0])
    if count == 4:  # the whole file is made again
        assert files_of(tmp_path / "store") == whole


class SlowEncoders(LetterEncoders):
    """Take their time, and note who encoded what."""

    def __init__(self, notes: Path) -> None:
        super().__init__()
        self.notes = notes

    def encode(self, captions: Sequence[str]) -> dict[str, Tensor]:
        time.sleep(0.03)
        with open(self.notes, "a") as file:
            file.write(f"{os.getpid()}\n")
        return super().encode(captions)


def build(folder: Path) -> None:
    encoders = SlowEncoders(folder.parent / "notes")
    make(store_of(folder, encoders), CAPTIONS, encoders)
    os._exit(0)


def test_two_processes_fill_a_store_and_one_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    pair = [context.Process(target=build, args=(tmp_path / "store",)) for _ in range(2)]
    for process in pair:
        process.start()
    notes = tmp_path / "notes"
    while not notes.exists() or min(Counter(notes.read_text().split()).get(str(one.pid), 0) for one in pair) < 2:
        time.sleep(0.005)
    pair[0].kill()
    for process in pair:
        process.join()
    assert (pair[0].exitcode, pair[1].exitcode) == (-9, 0)
    calls = Counter(notes.read_text().split())
    # 12 captions, one for the size of a row in each process, and what the killed one had begun of a file of four
    assert 14 <= calls.total() <= 14 + 4
    encoders = LetterEncoders()
    make(store_of(tmp_path / "other", encoders), CAPTIONS, encoders)
    assert contents(tmp_path / "store") == contents(tmp_path / "other")


def test_a_full_disk_is_foretold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    row = (8 * 4 + 3) * 4 + 8
    free: dict[str, int] = {}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free["bytes"]))
    encoders: Any = LetterEncoders()
    free["bytes"] = 12 * row - 1
    with pytest.raises(DMPError, match=r"needs 0.00 GB more for 12 captions, and the disk has 0.00 GB") as caught:
        make(store_of(tmp_path / "store", encoders), CAPTIONS, encoders)
    assert "--no-text-store" in str(caught.value)
    free["bytes"] = 12 * row
    make(store_of(tmp_path / "store", encoders), CAPTIONS, encoders)
    masked = LetterEncoders(masked=True)
    free["bytes"] = 8 * row  # captions of one letter; without their padding they take less
    make(store_of(tmp_path / "masked", masked), list("abcdefghijk"), masked)
