"""Text encoders and the table of captions: as the stock pipelines encode, once each, within bounds."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones.text import CaptionTable, TextEncoder, load_text
from dmp_cli.errors import CheckpointError
from tests.backbones.pipelines import tiny_pixart, tiny_vae, write_stock_pipeline
from tests.backbones.text_encoders import write_clip, write_t5

CAPTIONS = ["a red fox", "", "Two Cats ", "a red fox"]


def test_clip_as_the_stock_pipeline_encodes(tmp_path: Path) -> None:
    pipe = write_stock_pipeline(tmp_path)
    table = load_text(tmp_path)
    states = table.look_up(table.indices(CAPTIONS))["states"]
    for row, caption in enumerate(CAPTIONS):
        expected, _ = pipe.encode_prompt(caption, "cpu", 1, False)
        torch.testing.assert_close(states[row], expected[0], rtol=0, atol=1e-6)
    assert states.shape == (4, 16, 32)


def test_t5_as_the_stock_pipeline_encodes(tmp_path: Path) -> None:
    from diffusers import DPMSolverMultistepScheduler, PixArtAlphaPipeline
    from transformers import AutoTokenizer, T5EncoderModel

    write_t5(tmp_path)
    encoder = T5EncoderModel.from_pretrained(tmp_path / "text_encoder")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    pipe = PixArtAlphaPipeline(tokenizer, encoder, tiny_vae(), tiny_pixart(), DPMSolverMultistepScheduler())
    table = load_text(tmp_path)
    found = table.look_up(table.indices(CAPTIONS))
    states, masks = found["states"], found["mask"]
    for row, caption in enumerate(CAPTIONS):
        expected, mask, *_ = pipe.encode_prompt(caption, do_classifier_free_guidance=False, clean_caption=False)
        torch.testing.assert_close(states[row], expected[0], rtol=0, atol=1e-6)
        assert torch.equal(masks[row], mask[0].bool())
    assert states.shape == (4, 120, 32)


class Counting(TextEncoder):
    """An encoder that records the captions it is asked to encode."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__(encoder.tokenizer, encoder.model, encoder.record)
        self.asked: list[str] = []

    def encode(self, captions):  # type: ignore[no-untyped-def]
        self.asked += captions
        return super().encode(captions)


def test_a_caption_is_encoded_once_and_forgotten_when_there_is_no_room(tmp_path: Path) -> None:
    encoder = Counting(load_text(write_clip(tmp_path)).encoder)
    table = CaptionTable(encoder)
    indices = table.indices(["b", "", "a", "b"])
    assert indices.tolist() == [1, 0, 2, 1]
    assert [table.caption(index) for index in range(3)] == ["", "b", "a"]
    first = table.look_up(indices)["states"]
    again = table.look_up(indices)["states"]
    assert encoder.asked == ["b", "", "a"]
    assert torch.equal(first, again)
    size = sum(part[0].numel() * part.element_size() for part in table.look_up(indices).values())
    small = CaptionTable(encoder, kept_bytes=2 * size)  # room for two
    encoder.asked.clear()
    for caption in ("a", "b", "a", "c", "a", "b"):
        small.look_up(small.indices([caption]))
    assert encoder.asked == ["a", "b", "c", "b"]  # c drove out b, the longest unused


def test_no_parameter_asks_for_a_gradient_and_copies_work(tmp_path: Path) -> None:
    table = load_text(write_clip(tmp_path))
    other = copy.deepcopy(table)
    indices = table.indices(["a red fox"])
    assert torch.equal(table.look_up(indices)["states"], other.look_up(other.indices(["a red fox"]))["states"])
    assert not any(parameter.requires_grad for parameter in table.encoder.model.parameters())
    assert not table.encoder.model.training


def test_damaged_and_unsupported_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        load_text(tmp_path / "none")
    folder = write_clip(tmp_path / "clip")
    (folder / "text_encoder_2").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot read .*text_encoder_2"):
        load_text(folder)
    (folder / "text_encoder_2").rmdir()
    index = folder / "model_index.json"
    for third in ([None, None], ["transformers", "CLIPTextModel"]):
        index.write_text(json.dumps({"text_encoder": ["transformers", "CLIPTextModel"], "text_encoder_3": third}))
        if third == [None, None]:
            load_text(folder)
        else:
            with pytest.raises(CheckpointError, match=r"cannot read .*text_encoder_3"):
                load_text(folder)
    index.unlink()
    config = folder / "text_encoder" / "config.json"
    kept = config.read_text()
    config.write_text(json.dumps({**json.loads(kept), "architectures": ["CLIPTextModelWithProjection"]}))
    with pytest.raises(CheckpointError, match="CLIPTextModelWithProjection is not supported"):
        load_text(folder)
    config.write_text(json.dumps({**json.loads(kept), "num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_text(folder)
    config.write_text(kept)
    (folder / "text_encoder" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_text(folder)


def test_the_digest_tells_encoders_apart(tmp_path: Path) -> None:
    digests = {load_text(write_clip(tmp_path / str(seed), seed=seed)).encoder.record.digest for seed in (0, 1)}
    assert len(digests) == 2


@pytest.mark.parametrize("write", [write_clip, write_t5])
def test_states_do_not_depend_on_what_else_is_asked_for(tmp_path: Path, write: Any) -> None:
    table = load_text(write(tmp_path))
    together = table.look_up(table.indices(["a red fox", *(f"{n} cats" for n in range(30))]))["states"]
    alone = load_text(tmp_path)
    assert torch.equal(alone.look_up(alone.indices(["a red fox"]))["states"][0], together[0])


@pytest.mark.parametrize("write", [write_clip, write_t5])
def test_states_do_not_depend_on_the_precision_of_who_asks(tmp_path: Path, write: Any) -> None:
    table = load_text(write(tmp_path))
    condition = table.indices(["a red fox", ""])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = table.look_up(condition)["states"]
    assert torch.equal(states, load_text(tmp_path).encoder.encode(["a red fox", ""])["states"])


def test_the_null_caption_never_leaves(tmp_path: Path) -> None:
    encoder = Counting(load_text(write_clip(tmp_path)).encoder)
    table = CaptionTable(encoder, kept_bytes=1)  # room for one
    for captions in ([""], ["a red fox"], [""], ["blue"], [""]):
        table.look_up(table.indices(captions))
    assert encoder.asked.count("") == 1


def test_a_tokenizer_without_a_length_takes_that_of_the_encoder(tmp_path: Path) -> None:
    expected = load_text(write_clip(tmp_path)).encoder.length
    file = tmp_path / "tokenizer" / "tokenizer_config.json"
    about = json.loads(file.read_text())
    about.pop("model_max_length")
    file.write_text(json.dumps(about))
    assert load_text(tmp_path).encoder.length == expected
