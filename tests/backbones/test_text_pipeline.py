"""Captions through the stock pipelines' own ``encode_prompt``: SD3 with three encoders and with two, and Flux."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones.text import load_text
from dmp_cli.backbones.text_kinds import Call, TextKind
from dmp_cli.backbones.text_pipeline import PipelineEncoders
from dmp_cli.config import TextRecord
from dmp_cli.errors import CheckpointError
from tests.backbones.text_pipelines import write_flux_text, write_sd3_text

CAPTIONS = ["a red fox", "", "two cats " * 200]  # the last is longer than any of the encoders reads


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sd3_text(tmp_path_factory.mktemp("sd3"))


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flux_text(tmp_path_factory.mktemp("flux"))


def stock(folder: Path, **parts: Any) -> Any:
    """The pipeline of diffusers with the folder's tokenizers and text encoders alone."""
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(folder, transformer=None, vae=None, scheduler=None, **parts)


def test_sd3_as_the_stock_pipeline_encodes(sd3: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pipe, table = stock(sd3, image_encoder=None, feature_extractor=None), load_text(sd3)
    capfd.readouterr()
    found = table.look_up(table.indices(CAPTIONS))
    assert capfd.readouterr().err == ""  # how many are too long is counted and said elsewhere
    for row, caption in enumerate(CAPTIONS):
        with torch.no_grad():
            states, _, pooled, _ = pipe.encode_prompt(caption, None, None, do_classifier_free_guidance=False)
            _, null, _, null_pooled = pipe.encode_prompt("a", None, None)
        assert torch.equal(found["states"][row], states[0])
        assert torch.equal(found["pooled"][row], pooled[0])
    assert torch.equal(found["states"][1], null[0])
    assert torch.equal(found["pooled"][1], null_pooled[0])
    assert found["states"].shape == (3, 16 + 256, 96)
    assert found["pooled"].shape == (3, 24 + 40)
    assert found["mask"].shape == (3, 16 + 256)
    assert found["mask"].all()
    assert not any(value.requires_grad for value in found.values())
    assert (table.encoder.length, table.encoder.record.kind, table.encoder.record.length) == (256, "sd3", None)


def test_sd3_without_its_third_encoder(tmp_path: Path) -> None:
    folder = write_sd3_text(tmp_path, third=False)
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text(json.dumps({"joint_attention_dim": 88}))
    table = load_text(folder)
    found = table.look_up(table.indices(["a red fox"]))
    assert found["states"].shape == (1, 16 + 256, 88)
    assert not found["states"][:, 16:].any()
    assert found["states"][:, :16, : 32 + 48].abs().min() > 0
    assert table.encoder.length == 16  # tokens that are read
    shutil.rmtree(folder / "transformer")
    assert load_text(folder).encoder.encode([""])["states"].shape == (1, 16 + 256, 4096)  # as public models read
    (folder / "model_index.json").unlink()
    assert load_text(folder).encoder.record.kind == "sd3"  # by the classes of its encoders


@pytest.mark.parametrize("length", [None, 64])
def test_flux_as_the_stock_pipeline_encodes(flux: Path, length: int | None) -> None:
    pipe, table = stock(flux, image_encoder=None, feature_extractor=None), load_text(flux, length=length)
    found = table.look_up(table.indices(CAPTIONS))
    for row, caption in enumerate(CAPTIONS):
        with torch.no_grad():
            states, pooled, _ = pipe.encode_prompt(caption, None, max_sequence_length=length or 512)
        assert torch.equal(found["states"][row], states[0])
        assert torch.equal(found["pooled"][row], pooled[0])
    assert found["states"].shape == (3, length or 512, 40)
    assert found["pooled"].shape == (3, 32)
    assert (table.encoder.length, table.encoder.record.length) == (length or 512, length)


def test_every_encoder_counts_in_the_digest(sd3: Path, tmp_path: Path) -> None:
    from tests.backbones.text_encoders import write_t5

    other = shutil.copytree(sd3, tmp_path / "other")
    write_t5(other, seed=7, width=96, suffix="_3")
    assert load_text(other).encoder.record.digest != load_text(sd3).encoder.record.digest


def test_parts_that_are_missing_or_wrong_are_said(sd3: Path, flux: Path, tmp_path: Path) -> None:
    def refused(folder: Path, message: str) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            load_text(folder).look_up(torch.tensor([0]))
        assert "\n" not in caught.value.message

    folder = shutil.copytree(sd3, tmp_path / "named")
    shutil.rmtree(folder / "text_encoder_3")
    refused(folder, r"names a text_encoder_3")  # model_index.json says that there is one
    folder = shutil.copytree(sd3, tmp_path / "two")
    shutil.rmtree(folder / "text_encoder_2")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "text_encoder_2": [None, None]}))
    refused(folder, "a StableDiffusion3Pipeline needs a text_encoder_2, and there is none")
    folder = shutil.copytree(flux, tmp_path / "wrong")
    shutil.copytree(folder / "text_encoder", folder / "text_encoder_2", dirs_exist_ok=True)
    refused(folder, "a FluxPipeline has a T5EncoderModel as its text_encoder_2, and here it is CLIPTextModel")
    folder = shutil.copytree(flux, tmp_path / "more")
    shutil.copytree(folder / "text_encoder", folder / "text_encoder_3")
    refused(folder, "a FluxPipeline has no text_encoder_3")
    folder = shutil.copytree(flux, tmp_path / "tokens")
    shutil.rmtree(folder / "tokenizer_2")
    refused(folder, "cannot read the tokenizer")
    folder = shutil.copytree(flux, tmp_path / "narrow")
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text(json.dumps({"joint_attention_dim": 4096}))
    refused(folder, "give states of width 40, and its transformer reads 4096")


def test_an_entry_can_say_what_other_pipelines_need() -> None:
    """Masks, lists of one tensor a caption, calls for the null condition, several calls, and a last step."""

    class Pipe:
        text_encoder = torch.nn.Linear(1, 1)
        tokenizer = torch.nn.Module()

        def encode_prompt(self, prompt: str, device: torch.device, **given: Any) -> tuple[Any, ...]:
            states = torch.full((1, 3, 2), float(len(prompt)) + given.get("more", 0))
            return (states if given.get("alone") is None else [states[0]]), given.get("mask")

    Pipe.text_encoder.device = torch.device("cpu")
    Pipe.tokenizer.model_max_length = 3
    mask = torch.tensor([[1, 1, 0]])
    kind = TextKind(
        name="flux",
        pipeline="Pipe",
        encoders={"text_encoder": "CLIPTextModel"},
        calls=(Call(("states", "mask"), {"alone": True, "mask": mask}), Call(("more", None), {"more": 5})),
        null=(Call(("states", "mask"), {"more": 7}), Call(("more", None))),
        finish=lambda found: {**found, "more": found["more"] * 2},
    )
    record = TextRecord(kind="flux", source="here", digest="0")
    found = PipelineEncoders(Pipe(), kind, record, zeros=False, widths={}).encode(["fox", ""])
    assert found["states"][:, 0, 0].tolist() == [3, 7]
    assert found["more"][:, 0, 0].tolist() == [16, 0]
    assert found["mask"].tolist() == [[True, True, False], [True, True, True]]


def test_an_encoder_that_was_not_downloaded_is_named_with_the_way_to_go_without_it(sd3: Path, tmp_path: Path) -> None:
    shutil.copytree(sd3, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "text_encoder_3")
    with pytest.raises(CheckpointError, match="names a text_encoder_3, and there is none") as refused:
        load_text(tmp_path / "cut")
    hint = str(refused.value.hint)
    file = tmp_path / "cut" / "model_index.json"
    told = json.loads("{" + hint.partition("write ")[2].partition(" there")[0] + "}")
    file.write_text(json.dumps({**json.loads(file.read_text()), **told}))
    table = load_text(tmp_path / "cut")  # as the hint says
    assert not table.look_up(table.indices(["a red fox"]))["states"][0, 77:].any()
    shutil.rmtree(tmp_path / "cut" / "text_encoder_2")
    with pytest.raises(CheckpointError, match="text_encoder_2"):
        load_text(tmp_path / "cut")
