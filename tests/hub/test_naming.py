"""What a name on the hub is, and what a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmp_cli.hub import HubName, pinned_name, read_name, short_name

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ann/faces", HubName("ann/faces", None)),
        ("ann/faces-v1.2", HubName("ann/faces-v1.2", None)),
        ("ann/faces@main", HubName("ann/faces", "main")),
        ("ann/faces@refs/pr/3", HubName("ann/faces", "refs/pr/3")),
        ("run/patch.safetensors", None),
        ("run/PATCH.PT", None),
        ("./faces", None),
        ("~/faces", None),
        ("/ann/faces", None),
        ("faces", None),
        ("a/b/c", None),
        ("ann/faces:0.5", None),
        ("ann/faces@", None),
        ("ann/\u202efaces", None),
        ("ann/faces\n", None),
    ],
)
def test_names_and_paths(text: str, name: HubName | None) -> None:
    assert read_name(text) == name


def test_what_is_there_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ann").mkdir()
    assert read_name("ann/faces") == HubName("ann/faces", None)
    (tmp_path / "ann" / "faces").touch()
    assert read_name("ann/faces") is None


def test_only_a_commit_is_pinned() -> None:
    assert HubName("a/b", SHA).is_pinned
    assert not HubName("a/b", SHA[:12]).is_pinned
    assert not HubName("a/b", "main").is_pinned
    assert not HubName("a/b", None).is_pinned


def test_a_file_of_the_cache_knows_its_name() -> None:
    file = Path(f"/x/hub/models--ann--my-faces/snapshots/{SHA}/patch.safetensors")
    assert pinned_name(file) == f"ann/my-faces@{SHA}"
    assert pinned_name(f"{file}:0.5") == f"ann/my-faces@{SHA}:0.5"
    assert short_name(file) == "my-faces"
    elsewhere = Path("runs/photos/patch.safetensors")
    assert pinned_name(elsewhere) is None
    assert short_name(elsewhere) == "patch"
