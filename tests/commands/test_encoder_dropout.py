"""``dmp train --encoder-dropout``: single text encoders that are not told some captions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.backbones.flow_pipelines import write_flux_pipeline
from tests.backbones.pipelines import tiny_pixart, tiny_plain_unet, write_captioned, write_pipeline

from .conftest import Run

FEW = ("--steps", 2, "--batch-size", 2, "--lr", 0.01, "--sample-every", 0, "-q", "--image-size", 64)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_flux_pipeline(tmp_path / "flux")
    write_captioned(tmp_path / "images", count=4, size=64)
    write_captioned(tmp_path / "others", count=4, size=64)
    lines = [json.loads(line) for line in (tmp_path / "others" / "metadata.jsonl").read_text().splitlines()]
    told = [json.dumps({**line, "text": "another caption"}) for line in lines]
    (tmp_path / "others" / "metadata.jsonl").write_text("\n".join(told) + "\n")
    return tmp_path


def learnt(run: Run, images: str, place: str, *options: object) -> bytes:
    """The prompts and gate of a run, which name no data."""
    import torch

    from dmp_cli import load_patch

    run("train", "--backbone", "flux", "--data", images, *FEW, *options, "-o", place)
    patch = load_patch(Path(place, "patch.safetensors"))
    return b"".join(value.numpy().tobytes() for value in patch.state_dict().values() if isinstance(value, torch.Tensor))


@pytest.mark.slow
def test_what_no_encoder_is_told_has_no_effect(run: Run, data: Path) -> None:
    all_of_it = ("--encoder-dropout", "text_encoder=1,text_encoder_2=1")
    assert learnt(run, "images", "a", *all_of_it) == learnt(run, "others", "b", *all_of_it)
    assert learnt(run, "images", "c") != learnt(run, "others", "d")
    assert learnt(run, "images", "e", "--encoder-dropout", "text_encoder=0,text_encoder_2=0") == learnt(
        run, "images", "f"
    )
    half = ("--encoder-dropout", "text_encoder_2=0.5")
    whole = learnt(run, "images", "g", *half, "--steps", 4)
    learnt(run, "images", "h", *half, "--save-every", 1)  # and the same again, in two parts
    run("train", "--resume", "-o", "h", "--steps", 4, "-q")
    assert Path("g/patch.safetensors").read_bytes() == Path("h/patch.safetensors").read_bytes()
    assert whole != learnt(run, "images", "i", "--steps", 4)
    from dmp_cli.patching import read_record

    training = read_record(Path("g/patch.safetensors")).training
    assert training is not None
    assert training["encoder_dropout"] == {"text_encoder_2": 0.5}
    plain = read_record(Path("i/patch.safetensors")).training
    assert plain is not None
    assert "encoder_dropout" not in plain


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ("text_encoder_3=0.5", "the text encoders are text_encoder, text_encoder_2"),
        ("text_encoder=1.5", "give shares from 0 to 1"),
        ("text_encoder=half", "give shares from 0 to 1"),
        ("0.5", "give names and values, such as text_encoder=0.5"),
    ],
)
def test_bad_rates_are_refused(rates: str, message: str, run: Run, data: Path) -> None:
    train = ["train", "--backbone", "flux", "--data", "images", *FEW, "-o", "out"]
    assert message in run(*train, "--encoder-dropout", rates, code=1).stderr.replace("\n", " ")
    assert not (data / "out").exists()


def test_one_encoder_is_no_several(run: Run, data: Path) -> None:
    write_pipeline(data / "pixart", tiny_pixart(), text="t5")
    train = ["train", "--backbone", "pixart", "--data", "images", *FEW, "--encoder-dropout", "text_encoder=0.5"]
    assert "this one's has one" in run(*train, "-o", "out", code=1).stderr
    write_pipeline(data / "plain", tiny_plain_unet(), text=None)
    plain = ["train", "--backbone", "plain", "--vae", "none", *train[3:]]
    assert "for a backbone that reads text" in run(*plain, "-o", "out", code=1).stderr
