"""``dmp sample --keep-latents``: beside each image the latent it was decoded from, kept as safely as images are."""

from __future__ import annotations

import json
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dmp_cli.data import to_uint8
from dmp_cli.latents import load_vae
from tests.backbones.pipelines import tiny_vae
from tests.builders import tiny_dit, write_meta_checkpoint

from .conftest import Run, files_in
from .samples import bytes_of, names, pixels

COUNT = 6


@pytest.fixture
def common(run: Run, tmp_path: Path) -> list[str]:
    """The command for a backbone of four latent channels and its VAE, in chunks of four."""
    tiny_vae().save_pretrained(tmp_path / "vae")
    weights = write_meta_checkpoint(tmp_path / "latent.pt", tiny_dit(in_channels=4))
    named = ["--backbone", str(weights), "--num-heads", "2", "--num-classes", "4", "--vae", "vae"]
    return ["sample", *named, "--steps", "3", "--sampler", "ddim", "--batch-size", "4", "--device", "cpu", "-q"]


@pytest.fixture
def drawn(run: Run, common: list[str]) -> dict[str, bytes]:
    """The files of a whole folder with latents, by name; those of sums and locks are not among them."""
    run(*common, "-n", COUNT, "--keep-latents", "-o", "kept")
    return contents(Path("kept"))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and not p.name.startswith((".", "SHA256"))}


def latent_names(count: int) -> set[str]:
    return {f"{index:06d}.latent.npy" for index in range(count)}


def test_an_image_is_its_decoded_latent(run: Run, common: list[str], drawn: dict[str, bytes]) -> None:
    assert files_in(Path("kept")) == names(COUNT) | latent_names(COUNT)
    latents = np.stack([np.load(f"kept/{index:06d}.latent.npy", allow_pickle=False) for index in range(COUNT)])
    assert (latents.shape, latents.dtype) == ((COUNT, 4, 8, 8), np.float32)
    decoded = load_vae("vae").decode(torch.from_numpy(latents))
    assert np.abs(to_uint8(decoded).astype(int) - pixels(Path("kept"), COUNT)).max() <= 1
    run(*common, "-n", COUNT, "-o", "plain")
    assert bytes_of(Path("plain"), COUNT) == bytes_of(Path("kept"), COUNT)
    made = [json.loads(Path(f"{name}/samples.json").read_text())["made"] for name in ("kept", "plain")]
    assert made[0] == {**made[1], "latents": "float32"}


def test_in_tars_they_are_members_of_the_same_key(run: Run, common: list[str], drawn: dict[str, bytes]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("dmp_cli.sampling.tars.GROUP", 4)
        run(*common, "-n", COUNT, "--keep-latents", "--tar", "-o", "tars")
        run("sample", "--verify", "-o", "tars")
        found = {}
        for path in sorted(Path("tars").glob("*.tar")):
            with tarfile.open(path) as archive:
                found |= {member.name: archive.extractfile(member).read() for member in archive}
        assert list(found)[:3] == ["000000.png", "000000.latent.npy", "000000.cls"]
        assert {name: data for name, data in found.items() if name in drawn} == {
            name: drawn[name] for name in drawn if name[0] == "0"
        }
        Path("tars/samples-00001.tar").unlink()
        assert "000004.latent.npy is missing" in run("sample", "--verify", "-o", "tars", code=1).stderr
        run(*common, "-n", COUNT, "-o", "tars")
        assert not latent_names(COUNT) & files_in(Path("tars"))
        run("sample", "--verify", "-o", "tars")


def test_what_is_lost_is_drawn_again_to_the_same_bytes(run: Run, common: list[str], drawn: dict[str, bytes]) -> None:
    chance, sums = random.Random(0), Path("kept/SHA256SUMS")
    lines = sums.read_text().splitlines(keepends=True)
    for _ in range(4):
        lost = chance.sample(sorted(name for name in drawn if name[0] == "0"), 3)
        sums.write_text("".join(line for line in lines if not line.endswith(f"{lost[0]}\n")))  # killed before its sum
        Path("kept", lost[0]).write_bytes(b"x")
        for name in lost[1:]:
            Path("kept", name).unlink()
        Path("kept/.000001.latent.npy.partial").write_bytes(b"x")
        run(*common, "-n", COUNT, "-o", "kept")  # it keeps latents, as it was begun
        assert contents(Path("kept")) == drawn
        assert not Path("kept/.000001.latent.npy.partial").exists()


def test_parts_and_a_larger_number_give_the_same_files(run: Run, common: list[str], drawn: dict[str, bytes]) -> None:
    run(*common, "-n", 3, "--keep-latents", "-o", "grown", "--batch-size", 4)
    for part in ("2/2", "1/2"):
        run(*common, "-n", COUNT, "-o", "grown", "--shard", part)
    assert contents(Path("grown")) == drawn


def test_damage_is_found_and_scores_need_no_latents(run: Run, common: list[str], drawn: dict[str, bytes]) -> None:
    path = Path("kept/000002.latent.npy")
    path.write_bytes(drawn[path.name][:-1] + b"\0")
    assert "000002.latent.npy was changed" in run("sample", "--verify", "-o", "kept", code=1).stderr
    assert "000002.latent.npy was changed" in run(*common, "-n", COUNT, "-o", "kept", code=1).stderr
    path.unlink()
    assert "000002.latent.npy is missing" in run("sample", "--verify", "-o", "kept", code=1).stderr
    run("eval", "--samples", "kept", "--reference", "kept", "--features", "pixels", "--bootstrap", 0, "-o", "s", "-q")


def test_a_folder_begun_without_them_stays_without(run: Run, common: list[str], drawn: dict[str, bytes]) -> None:
    run(*common, "-n", 2, "-o", "plain")
    before = contents(Path("plain"))
    failed = run(*common, "-n", 4, "--keep-latents", "-o", "plain", code=1).stderr
    assert "plain was begun without latents" in failed
    assert len(failed.splitlines()) == 2
    assert contents(Path("plain")) == before
    run(*common, "-n", 2, "-o", "kept", "--force")
    assert files_in(Path("kept")) == names(2)
    Path("plain/000000.latent.npy").write_bytes(b"x")
    assert "000000.latent.npy does not belong" in run("sample", "--verify", "-o", "plain", code=1).stderr


def test_pixels_have_no_latent(run: Run, backbone: list[str], tmp_path: Path) -> None:
    failed = run("sample", *backbone, "-n", 1, "--steps", 2, "--keep-latents", "-o", "s", code=1).stderr
    assert "this backbone denoises pixels" in failed
    assert not (tmp_path / "s").exists()
