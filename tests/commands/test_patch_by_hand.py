"""``dmp patch --block-lists``: a patch of a model that no family names, and what the commands then say of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli import attach, load_patch
from tests.backbones.by_hand_models import cogview3, flux2, save

from .conftest import Run, files_in, parse

FLUX2 = [
    *("--block-lists", "transformer_blocks,single_transformer_blocks", "--image-at", "single_transformer_blocks=last"),
    *("--timestep-module", "time_guidance_embed.timestep_embedder"),
    *("--inputs", "hidden_states=1x16x8,encoder_hidden_states=1x5x12,img_ids=16x4,txt_ids=5x4,guidance=1"),
]


def changed(options: list[str], name: str, value: str | None) -> list[str]:
    at = options.index(name)
    return [*options[:at], *([] if value is None else [name, value]), *options[at + 2 :]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "flux2", flux2().model)


def test_it_is_made_shown_and_attached(run: Run, folder: Path, tmp_path: Path) -> None:
    before = files_in(tmp_path)
    told = run("patch", "--backbone", folder, *FLUX2)
    assert "the gate reads 32 numbers of time_guidance_embed.timestep_embedder" in told.stdout + told.stderr
    assert files_in(tmp_path) == before
    result = parse(run("patch", "--backbone", folder, *FLUX2, "-o", "new.safetensors", "--json"))
    assert files_in(tmp_path) == before | {"new.safetensors"}
    assert [block["name"] for block in result["blocks"]] == [
        *("transformer_blocks.0", "single_transformer_blocks.0", "single_transformer_blocks.1")
    ]
    assert all(block["hidden_shape"] == [16, 32] for block in result["blocks"])
    assert result["patch_parameters"] == 3 * 16 * 32 + 16 * (32 + 1) + 16
    about = run("patch", "--info", "new.safetensors").stdout
    assert "single_transformer_blocks (last); the gate reads time_guidance_embed.timestep_embedder" in about
    assert "schedule" not in about
    foreign = flux2()
    with torch.no_grad():
        bare = foreign.model(**foreign.call, return_dict=False)[0]
        attach(foreign.model, load_patch(tmp_path / "new.safetensors"))
        assert torch.equal(foreign.model(**foreign.call, return_dict=False)[0], bare)


def test_its_config_tells_most_shapes(run: Run, tmp_path: Path) -> None:
    folder = save(tmp_path / "cogview3", cogview3().model)
    sizes = "original_size=1x2,target_size=1x2,crop_coords=1x2"
    said = ["--block-lists", "transformer_blocks", "--timestep-module", "time_condition_embed.timestep_embedder"]
    result = parse(run("patch", "--backbone", folder, *said, "--inputs", sizes, "--json"))
    assert [block["hidden_shape"] for block in result["blocks"]] == [[16, 16], [16, 16]]
    error = run("patch", "--backbone", folder, *said, code=1).stderr
    assert "the shape of original_size and target_size and crop_coords" in error.replace("\n", " ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (changed(FLUX2, "--block-lists", None), "--image-at is for a model by hand; name its --block-lists too"),
        (changed(FLUX2, "--timestep-module", None), "embeds the timestep is not known.*time_guidance_embed"),
        (changed(FLUX2, "--image-at", None), "is given 21 tokens, and the image has 16"),
        (changed(FLUX2, "--image-at", "single_transformer_blocks=middle"), "--image-at"),
        (changed(FLUX2, "--image-at", "last"), "give names and values, such as single_transformer_blocks=last"),
        (changed(FLUX2, "--inputs", "hidden_states=one"), "give a shape such as 1x77x4096"),
        ([*FLUX2, "--memory"], "--memory does not go with --block-lists"),
        ([*FLUX2, "--image-size", "64"], "--image-size does not go with --block-lists"),
        ([*FLUX2, "--position", "prepend"], "--position prepend"),
        ([*FLUX2, "--gate-input", "conditioning"], "its gate can read the timestep only"),
        ([*FLUX2, "--experts", "lora"], "--expert-targets"),
    ],
)
def test_bad_input_is_one_sentence(options: list[str], message: str, run: Run, folder: Path, tmp_path: Path) -> None:
    before = files_in(tmp_path)
    finished = run("patch", "--backbone", folder, *options, "-o", "new.safetensors", code=1)
    assert re.search(message, re.sub(r"\s+", " ", finished.stderr)), finished.stderr
    assert files_in(tmp_path) == before


def forge(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "AutoencoderKL2"}, "says no model of diffusers: AutoencoderKL2"),
        ({"_class_name": "DiffusionPipeline"}, "says no model of diffusers"),
        ({"_class_name": "os"}, "says no model of diffusers"),
        ({"num_layers": 10**9}, "more than any model has"),
        ({"num_layers": "many"}, "describes no model that can be built"),
        ({"num_layers": 2}, "does not fit the backbone"),
    ],
)
def test_a_forged_config_is_refused(changes: dict[str, Any], message: str, run: Run, folder: Path) -> None:
    forge(folder, **changes)
    assert re.search(message, re.sub(r"\s+", " ", run("patch", "--backbone", folder, *FLUX2, code=1).stderr))


def test_a_family_is_patched_as_it_is(run: Run, tmp_path: Path) -> None:
    from tests.backbones.pipelines import tiny_plain_unet

    tiny_plain_unet().save_pretrained(tmp_path / "unet")
    options = ["--block-lists", "down_blocks", "--timestep-module", "time_embedding"]
    assert "of the family unet" in run("patch", "--backbone", tmp_path / "unet", *options, code=1).stderr


def test_commands_that_would_have_to_call_the_model_refuse(run: Run, folder: Path, tmp_path: Path) -> None:
    run("patch", "--backbone", folder, *FLUX2, "-o", "new.safetensors")
    before = files_in(tmp_path)
    for command in (
        ["sample", "--patch", "new.safetensors", "-n", 1],
        ["inspect-gates", "--patch", "new.safetensors"],
        ["patch", "--export", "new.safetensors"],
    ):
        error = re.sub(r"\s+", " ", run(*command, code=1).stderr)
        assert "of a Flux2Transformer2DModel that was patched by hand" in error
        assert "attach(pipe.transformer, load_patch(PATH))" in error
    error = run("patch", "--backbone", folder, code=1).stderr
    assert "unknown family: Flux2Transformer2DModel" in error
    assert "docs/by-hand.md" in error
    assert files_in(tmp_path) == before
