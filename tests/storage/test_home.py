"""The user's folders, for a user who has none: one sentence that says what to set, and nothing is made."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest

from dmp_cli.errors import DMPError
from dmp_cli.storage.home import cache_folder, can_write, home_folder


def homeless(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id without an entry and without HOME, as platformdirs tells it: newer versions raise, older return ~."""

    def answer(*names: str, **options: object) -> str:
        if way == "raises":
            raise RuntimeError("could not determine the home directory")
        return "~/.local/share/dmp"

    for name in ("user_data_dir", "user_cache_dir"):
        monkeypatch.setattr(platformdirs, name, answer)
    monkeypatch.delenv("DMP_HOME")


@pytest.mark.parametrize("way", ["raises", "returns a tilde"])
def test_no_home(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    homeless(way, monkeypatch)
    with pytest.raises(DMPError, match="no home folder, and DMP_HOME is not set") as caught:
        home_folder()
    assert "DMP_HOME" in str(caught.value.hint)
    assert "--store-dir" in str(caught.value.hint)
    assert cache_folder() is None
    monkeypatch.setenv("DMP_HOME", "/somewhere")
    assert home_folder() == Path("/somewhere")


def test_what_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert can_write(tmp_path)
    assert can_write(tmp_path / "new" / "newer")
    assert not can_write(tmp_path / "file" / "below")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    assert not can_write(tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    assert not can_write(Path("new"))
    assert not list(tmp_path.glob("new*"))
