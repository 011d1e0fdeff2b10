"""``dmp push``, and ``--patch user/name``: through a hub on this machine and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dmp_cli.errors import DMPError
from dmp_cli.report import draw_image_grid
from tests.commands.conftest import Run, parse
from tests.hub.local_hub import LocalHub, Repository, serving

MIT = ("--license", "mit")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    with serving(monkeypatch, tmp_path / "hub-cache") as served:
        yield served


def front_of(card: str) -> dict[str, Any]:
    """The metadata of a card, as the hub reads it."""
    return yaml.safe_load(card.split("---\n")[1])


def grid(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(draw_image_grid([np.zeros((8, 8, 3), np.uint8)], rows=1, columns=1))
    return path


def test_a_run_goes_to_the_hub_and_comes_back_by_its_name(run: Run, patch: Path, hub: LocalHub, tmp_path: Path) -> None:
    grid(patch.parent / "samples" / "step-00000002.png"), grid(patch.parent / "samples" / "step-00000003.png")
    pushed = parse(run("push", patch.parent, "ann/faces", *MIT, "--base-model", "meta/dit", "--json"))
    (repo,) = hub.repositories.values()
    ((commit, files),) = repo.commits
    assert pushed == {"repo": "ann/faces", "revision": commit, "url": f"{hub.address}/ann/faces/commit/{commit}"}
    assert set(files) == {"patch.safetensors", "README.md", "samples.png", "gates.png"}
    assert files["patch.safetensors"] == patch.read_bytes()
    assert repo.messages == ["A patch after 3 steps"]
    card = files["README.md"].decode()
    assert front_of(card) == {
        "license": "mit",
        "library_name": "dmp",
        "base_model": "meta/dit",
        "base_model_relation": "adapter",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["dmp", "diffusion-model-patching", "dit"],
    }
    from dmp_cli.patching import read_record

    record = read_record(patch)
    assert record.backbone.digest in card
    assert "trained for 3 steps on 8 images of `images`" in card
    assert re.search(r"\| `--lr` \| +`0.01` \| +`0.0001` \|", card)
    assert re.search(r"\| `--batch-size` \| +`4` \| +`128` \|", card)
    assert "`--optimizer`" not in card
    assert "after 3 steps" in card.split("## Samples")[1]
    # And back: not without --download; then by the hub; then by the cache alone, with the same bytes.
    refused = run("sample", "--patch", "ann/faces", "-n", 2, code=1)
    assert "ann/faces is neither a file here nor a patch in the local hub cache" in refused.stderr
    run("sample", "--patch", "ann/faces", "--download", "-n", 2, "--steps", 2, "-o", "one", "-q")
    fetched = len(hub.asked)
    for name in ("ann/faces", f"ann/faces@{commit}", "ann/faces:1.0"):
        run("sample", "--patch", name, "-n", 2, "--steps", 2, "-o", name[9:] or "two", "-q")
    assert len(hub.asked) == fetched
    run("sample", "--patch", patch, "-n", 2, "--steps", 2, "-o", "local", "-q")
    assert (tmp_path / "one" / "000001.png").read_bytes() == (tmp_path / "local" / "000001.png").read_bytes()
    told = json.loads((tmp_path / "one" / "samples.json").read_text())
    assert told["origin"]["given"]["patch"] == f"ann/faces@{commit}"
    assert json.loads((tmp_path / ":1.0" / "samples.json").read_text())["origin"]["given"]["patch"].endswith(":1.0")


@pytest.mark.slow
def test_a_revision_stays_what_it_was(run: Run, patch: Path, hub: LocalHub, images: Path, tmp_path: Path) -> None:
    first = parse(run("push", patch, "ann/faces", *MIT, "--gates", "none", "--json"))["revision"]
    info = run("patch", "--info", "ann/faces", "--download").stdout
    hub.repositories["ann/faces"].add({"patch.safetensors": b"another"}, "broken")
    assert run("patch", "--info", "ann/faces", "--download").stdout == info  # the cache is looked at first
    moved = run("patch", "--info", "ann/faces@main", "--download", code=1)  # asks the hub what main is now
    assert "Traceback" not in moved.stderr
    assert run("patch", "--info", f"ann/faces@{first}").stdout.replace(first, "") == info.replace(first, "")
    missing = run("patch", "--info", f"ann/faces@{'0' * 40}", "--download", code=1)
    assert "the hub has no such revision" in missing.stderr
    run("sample", "--patch", patch, "--against", f"ann/faces@{first}", "-n", 1, "--steps", 2, "-o", "led", "-q")
    told = json.loads((tmp_path / "led" / "samples.json").read_text())
    assert told["origin"]["given"]["against"] == f"ann/faces@{first}"
    refused = run("sample", "--patch", patch, "--against", "no/adapter", "-n", 1, "-o", "x", code=1).stderr
    assert "no/adapter: there is no such file or folder" in refused
    run("inspect-gates", "--patch", f"ann/faces@{first}", "-q")
    assert (tmp_path / "gates" / "faces" / "gates.png").exists()
    run("eval", "--loss", "--patch", f"ann/faces@{first}", "--val-data", images, "--val-draws", 20, "-q")
    told = json.loads((tmp_path / "scores" / "loss.json").read_text())
    assert list(told["patches"]) == [f"ann/faces@{first}"]


def test_python_pushes_the_same(run: Run, patch: Path, hub: LocalHub) -> None:
    from dmp_cli.patching import Patch

    run("push", patch, "ann/typed", *MIT, "--gates", "none", "-q")
    pushed = Patch.from_pretrained(patch).push_to_hub("ann/python", license="mit", commit_message="From Python")
    typed, ours = (hub.repositories[name].commits[-1] for name in ("ann/typed", "ann/python"))
    assert pushed.revision == ours[0]
    assert hub.repositories["ann/python"].messages == ["From Python"]
    assert ours[1]["patch.safetensors"] == patch.read_bytes()
    assert ours[1]["README.md"].decode() == typed[1]["README.md"].decode().replace("typed", "python")
    with pytest.raises(DMPError, match="neither a file here nor a patch in the local hub cache"):
        Patch.from_pretrained("ann/python")
    back = Patch.from_pretrained("ann/python", revision=pushed.revision, download=True)
    assert back.record == Patch.from_pretrained(f"ann/python@{pushed.revision}").record  # from the cache
    with pytest.raises(DMPError, match="is no user/name of the hub"):
        Patch.from_pretrained(patch, revision="main")


def test_dry_run_shows_files_and_card_and_sends_nothing(run: Run, patch: Path, hub: LocalHub, tmp_path: Path) -> None:
    command = ("push", patch, "ann/faces", *MIT, "--grid", grid(tmp_path / "g.png"), "--gates", "none", "--dry-run")
    shown = parse(run(*command, "--json"))
    assert set(shown["files"]) == {"patch.safetensors", "README.md", "samples.png"}
    assert shown["files"]["README.md"] == len(shown["card"].encode())
    assert "base_model" not in front_of(shown["card"])  # its weights are a file here
    plain = run(*command).stdout
    assert "# faces" in plain.splitlines()
    assert hub.asked == []


def test_scores_and_pairs_of_the_same_noise(run: Run, patch: Path, images: Path, tmp_path: Path) -> None:
    for folder, more in (("base", ["--no-patch"]), ("patched", [])):
        run("sample", "--patch", patch, *more, "-n", 20, "--steps", 2, "-o", folder, "-q")
    score = ("--samples", "base", "--samples", "patched", "--reference", images, "--features", "pixels")
    run("eval", *score, "--metrics", "kid", "-o", "scored", "-q")
    report = json.loads((tmp_path / "scored" / "report.json").read_text())
    command = ("push", patch, "ann/faces", *MIT, "--scores", "scored", "--gates", "none", "--dry-run", "--json")
    shown = parse(run(*command))
    score = report["rows"][1]["scores"]["kid"]
    low, high = score["interval"]
    assert f"{score['difference']:+.4g} ({low:+.4g} to {high:+.4g})" in shown["card"]
    assert "Each column is drawn from the same noise" in shown["card"]
    assert set(shown["files"]) == {"patch.safetensors", "README.md", "samples.png"}
    report["rows"][1]["made"]["made"]["sample"]["seed"] = 7
    (tmp_path / "scored" / "report.json").write_text(json.dumps(report))
    assert set(parse(run(*command))["files"]) == {"patch.safetensors", "README.md"}
    (tmp_path / "scored" / "report.json").write_text('{"rows": [{}]}')
    assert "is not as dmp eval writes it" in run(*command, code=1).stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "no licence given"),
        (("--license", "MIT License"), "is no licence as the hub writes it"),
        ((*MIT, "--scores", "nowhere"), "nowhere/report.json"),
        ((*MIT, "--grid", "images"), "--grid images"),
        ((*MIT, "--gates", "nowhere"), "--gates nowhere/gates.png cannot be read"),
    ],
)
def test_what_is_refused(more: tuple[str, ...], said: str, run: Run, patch: Path, images: Path) -> None:
    assert said in run("push", patch, "ann/faces", *more, "--dry-run", code=1).stderr


def test_names_and_a_hub_that_refuses(run: Run, patch: Path, images: Path, hub: LocalHub) -> None:
    assert "images holds no patch.safetensors" in run("push", images, "ann/faces", *MIT, code=1).stderr
    for name in ("faces", "ann/faces@main", "a/b/c", "../x"):
        refused = run("push", patch, name, *MIT, "--gates", "none", code=1)
        assert f"{name} is no name on the hub" in refused.stderr
    assert hub.asked == []
    hub.token = "another"
    refused = run("push", patch, "ann/faces", *MIT, "--gates", "none", code=1)
    assert "ann/faces: " in refused.stderr
    assert "hf auth login" in refused.stderr
    hub.repositories["bob/two"] = two = Repository()
    two.add({"a.safetensors": b"", "b.safetensors": b""}, "two files")
    assert "holds no patch" in run("patch", "--info", "bob/two", "--download", code=1).stderr
    assert "the hub shows no such repository" in run("patch", "--info", "bob/none", "--download", code=1).stderr


def test_a_hub_that_is_not_there(run: Run, patch: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in run("push", patch, "ann/faces", *MIT, "--gates", "none", code=1).stderr
