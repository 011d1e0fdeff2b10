"""``--data hf:user/name``: from a hub on this machine, and afterwards from the cache alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmp_cli.data import Elsewhere, find_images
from dmp_cli.errors import DataError
from tests.data.test_tables import features, parquet, png, rows
from tests.hub.local_hub import Repository, serving

datasets = pytest.importorskip("datasets")


@pytest.mark.slow
def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    file = parquet(tmp_path / "t.parquet", rows(3, text=["a", "b", "c"]), features(text=datasets.Value("string")))
    with serving(monkeypatch, tmp_path / "hub-cache") as hub:
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.address)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        hub.repositories["ann/photos"] = repository = Repository()
        files = {f"data/{split}-00000-of-00001.parquet": file.read_bytes() for split in ("train", "test")}
        commit = repository.add(files, "photos")
        with pytest.raises(DataError, match="hf:ann/photos is neither here nor in the local cache of datasets") as told:
            find_images("hf:ann/photos")
        assert "--download" in str(told.value.hint)
        assert hub.asked == []
        images = find_images("hf:ann/photos:test", elsewhere=Elsewhere(download=True))
        assert [images.read(row) for row in range(3)] == [png(0), png(10), png(20)]
        assert images.caption(2) == "c"
        assert images.origin == {"ann/photos": commit}
        asked = len(hub.asked)
        again = find_images("hf:ann/photos:test")
        assert len(hub.asked) == asked
        assert again.fingerprint == images.fingerprint
        assert again.origin == images.origin
        with pytest.raises(DataError):
            find_images("hf:ann/nothing", elsewhere=Elsewhere(download=True))
