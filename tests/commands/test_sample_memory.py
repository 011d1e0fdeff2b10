"""``dmp sample`` and ``dmp eval --loss`` with weights in few bits or in main memory, and a VAE of tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import AutoencoderKL

from dmp_cli.backbones import keeping, packed, quantized
from dmp_cli.evaluation.reproduce import _sample_words
from dmp_cli.latents.codec import VAECodec
from dmp_cli.sampling import read_record
from tests.backbones.pipelines import tiny_vae
from tests.backbones.test_quantized import by_rows
from tests.builders import tiny_dit, write_meta_checkpoint

from .conftest import Run, parse
from .samples import QUICK, bytes_of, pixels


@pytest.fixture
def eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rounding of torchao, without the library."""
    monkeypatch.setitem(quantized._PACK, "int8", by_rows)
    monkeypatch.setitem(quantized._LIBRARIES, "int8", ("torch", "quantize"))


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU stands for a GPU."""
    monkeypatch.setattr(keeping, "check_offload", lambda device: None)


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for every weight that is made anew."""
    found: list[int] = []
    unpacked = packed._unpacked
    monkeypatch.setattr(packed, "_unpacked", lambda *given: (found.append(1), unpacked(*given))[1])
    return found


@pytest.fixture
def latent(tmp_path: Path) -> list[str]:
    """A backbone of four latent channels, with a VAE whose tiles are a quarter of an image."""
    vae = tiny_vae()
    vae.register_to_config(sample_size=8)
    vae.save_pretrained(tmp_path / "vae")
    weights = write_meta_checkpoint(tmp_path / "latent.pt", tiny_dit(in_channels=4))
    return ["--backbone", str(weights), "--num-heads", "2", "--num-classes", "4", "--vae", "vae", *QUICK]


def made(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "samples.json").read_text())["made"]
    return found


def words_again(folder: str) -> str:
    """The command that draws a folder again, as the page of scores has it."""
    content = json.loads(Path(folder, "samples.json").read_text())
    return " ".join(_sample_words(read_record(content), count=4, folder=Path(folder)))


def test_images_of_eight_bits(run: Run, patch: Path, eight_bits: None) -> None:
    draw = ["sample", "--patch", patch, "-n", 4, *QUICK[:-1]]
    run(*draw, "-o", "float")
    shown = run(*draw, "-o", "few", "--quantize", "int8").stderr
    assert "the patch was trained on weights in float, and these are in int8: nearly the same" in shown
    assert "--quantize int8" in words_again("few")
    assert "quantize" not in words_again("float")
    assert made("few")["sample"].pop("quantize") == "int8"
    assert "quantize" not in made("float")["sample"]
    apart = np.abs(pixels(Path("few"), 4) - pixels(Path("float"), 4))
    assert 0 < apart.mean() < 8
    run(*draw[:4], 6, *QUICK, "-o", "few", "--quantize", "int8", "--batch-size", 4)
    for precision, folder in (([], "few"), (["--quantize", "int8"], "float")):
        told = run(*draw, "-o", folder, *precision, code=1).stderr
        assert "quantize" in told
        assert "int8" in told


def test_offloaded_blocks_draw_the_same_bytes(
    run: Run, patch: Path, latent: list[str], on_a_gpu: None, moves: list[int]
) -> None:
    draw = ["sample", "--patch", patch, "-n", 4, *QUICK]
    run(*draw, "-o", "here")
    run(*draw, "-o", "away", "--offload-blocks")
    assert bytes_of(Path("here"), 4) == bytes_of(Path("away"), 4)
    assert made("here") == made("away")
    run(*draw, "-o", "away", "-n", 6, "--batch-size", 4)  # it may go on without
    patched = len(moves)
    assert patched > 0
    run("sample", *latent, "-n", 2, "-o", "latents")
    assert len(moves) == patched
    run("sample", *latent, "-n", 2, "-o", "rested", "--offload-blocks")  # bare
    assert len(moves) > patched
    assert bytes_of(Path("latents"), 2) == bytes_of(Path("rested"), 2)


def test_both_at_once(run: Run, patch: Path, eight_bits: None, on_a_gpu: None) -> None:
    draw = ["sample", "--patch", patch, "-n", 4, *QUICK, "--quantize", "int8", "--dtype", "bf16"]
    run(*draw, "-o", "here")
    run(*draw, "-o", "away", "--offload-blocks")
    assert bytes_of(Path("here"), 4) == bytes_of(Path("away"), 4)


def test_an_adapter_on_eight_bits(
    run: Run, backbone: list[str], images: Path, eight_bits: None, on_a_gpu: None, moves: list[int]
) -> None:
    how = ["--method", "lora", "--steps", 2, "--batch-size", 4, "--lr", 0.05, "--sample-every", 0, "-q"]
    run("train", *backbone, "--data", images, *how, "-o", "lora")
    draw = ["sample", *backbone, "--adapter", "lora/adapter", "-n", 4, *QUICK]
    run(*draw, "-o", "float")
    run(*draw, "-o", "away", "--offload-blocks")
    run(*draw, "-o", "few", "--quantize", "int8")
    assert bytes_of(Path("float"), 4) == bytes_of(Path("away"), 4)
    assert 0 < np.abs(pixels(Path("few"), 4) - pixels(Path("float"), 4)).mean() < 8
    assert "--quantize and --against" in run(*draw, "--against", "base", "--quantize", "int8", code=1).stderr


def test_a_run_on_offloaded_blocks_learns_the_same(
    run: Run, backbone: list[str], images: Path, on_a_gpu: None, tmp_path: Path
) -> None:
    train = ["train", *backbone, "--data", images, "--steps", 2, "--batch-size", 4, "--lr", 0.01, "-q"]
    run(*train, "-o", "here")
    run(*train, "-o", "away", "--offload-blocks")
    assert Path("here/patch.safetensors").read_bytes() == Path("away/patch.safetensors").read_bytes()


def test_the_loss_on_eight_bits(run: Run, patch: Path, images: Path, eight_bits: None, on_a_gpu: None) -> None:
    measure = ["eval", "--loss", "--patch", patch, "--val-data", images, "--val-draws", 20, "--json"]
    whole = parse(run(*measure, "-o", "float"))
    few = parse(run(*measure, "-o", "few", "--quantize", "int8", "--offload-blocks"))
    assert few["quantize"] == "int8"
    assert "quantize" not in whole
    one, other = (found["patches"][str(patch)]["loss"] for found in (whole, few))
    assert one != other
    assert other == pytest.approx(one, rel=0.05)
    assert parse(run(*measure, "-o", "away", "--offload-blocks"))["patches"] == whole["patches"]


def test_images_in_tiles(run: Run, latent: list[str]) -> None:
    draw = ["sample", *latent, "-n", 2, "--keep-latents"]
    run(*draw, "-o", "whole")
    run(*draw, "-o", "tiled", "--vae-tiling")
    assert made("tiled")["vae_tiling"] == 8
    assert "--vae-tiling" in words_again("tiled")
    assert "vae_tiling" not in made("whole")
    latents = [Path(name, "000000.latent.npy").read_bytes() for name in ("whole", "tiled")]
    assert latents[0] == latents[1]
    apart = np.abs(pixels(Path("whole"), 2) - pixels(Path("tiled"), 2))
    assert 0 < apart.mean() < 32
    assert "vae-tiling none, now 8" in run(*draw, "-o", "whole", "--vae-tiling", code=1).stderr
    assert "vae-tiling 8, now none" in run(*draw, "-o", "tiled", code=1).stderr


def test_what_is_refused_in_one_sentence(
    run: Run, patch: Path, backbone: list[str], images: Path, latent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = ["--backbone", "missing.pt", "--device", "cpu"]
    for command in (["sample", *missing, "--num-heads", "2"], ["train", *missing, "--data", images]):
        assert "--offload-blocks needs a GPU" in run(*command, "--offload-blocks", code=1).stderr
        assert "--quantize nf4 needs a CUDA device" in run(*command, "--quantize", "nf4", code=1).stderr
    draw = ["sample", "--patch", patch, *QUICK]
    assert "there is no VAE" in run(*draw, "--vae-tiling", code=1).stderr
    for option in (["--quantize", "int8"], ["--offload-blocks"]):
        told = run(*draw, *option, "--compile", code=1).stderr
        assert f"{option[0]} and --compile do not go together" in told
    measure = ["eval", "--loss", *backbone, "--adapter", "x", "--val-data", images, "--device", "cpu"]
    assert "leave out --adapter" in run(*measure, "--quantize", "int8", code=1).stderr
    monkeypatch.setattr(AutoencoderKL, "enable_tiling", _cannot)
    assert "is a AutoencoderKL, which cannot decode in tiles" in run("sample", *latent, "--vae-tiling", code=1).stderr


def _cannot(vae: Any) -> None:
    raise NotImplementedError


def test_a_codec_that_rests_works_where_its_input_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from dmp_cli.config import CodecRecord

    places: list[str] = []
    vae = tiny_vae()
    codec = VAECodec(vae, CodecRecord(kind="vae"))
    move = vae.to
    monkeypatch.setattr(vae, "to", lambda place: (places.append(str(place)), move(place))[1])
    codec.rest()
    codec.to("meta")  # type: ignore[arg-type]
    assert places == ["cpu", "cpu"]
    latents = codec.encode(_picture(), noise=_picture()[:, :1].expand(1, 4, 8, 8)[..., :4, :4])
    codec.decode(latents)
    assert places == ["cpu", "cpu", *["cpu", "cpu"] * 2]


def _picture() -> Any:
    import torch

    return torch.zeros(1, 3, 8, 8)
