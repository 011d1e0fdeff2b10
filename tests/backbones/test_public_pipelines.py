"""Whole pipelines as their repositories hold them, against diffusers' own loading of the same folder."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones import Backbone, load_backbone, peek_backbone
from dmp_cli.backbones.text_pipeline import PipelineEncoders
from dmp_cli.latents import load_codec
from tests.backbones.joined_pipelines import qwen_is_old
from tests.builders import TOLD, same_weights, tiny_dit, write_weights
from tests.zoo.checkpoints import TOLD_FLOWS
from tests.zoo.public_pipelines import LATER, LAYOUTS
from tests.zoo.schedulers import FLOWS


@pytest.mark.parametrize("repository", LAYOUTS)
def test_a_public_pipeline_is_read_as_diffusers_reads_it(repository: str, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline, PixArtTransformer2DModel

    folder = tmp_path / "pipeline"
    folder.mkdir()
    LAYOUTS[repository](folder)
    how: dict[str, Any] = {}
    if "fp16 files alone" in repository:
        how = {"variant": "fp16"}
    if "without its T5" in repository:  # diffusers is to be told, though the folder says it
        how = {"text_encoder_3": None, "tokenizer_3": None}
    if "PixArt" in repository:  # the builder writes no whole pipeline of it
        pipe: Any = None
        core: Any = PixArtTransformer2DModel.from_pretrained(folder / "transformer")
    else:
        pipe = DiffusionPipeline.from_pretrained(folder, **how).to(torch.float32)
        core = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    backbone = load_backbone(str(folder))
    assert backbone.remarks == ()
    assert same_weights(backbone.core, core)
    early = peek_backbone(str(folder))
    assert early is not None
    assert early.sizes == backbone.sizes
    assert load_codec(None, backbone).record.kind == "vae"
    found = backbone.captions.look_up(backbone.captions.indices(["a red fox"]))
    if pipe is not None:
        further = {name: None for name in ("prompt_2", "prompt_3") if name in signature(pipe.encode_prompt).parameters}
        told = pipe.encode_prompt("a red fox", **further)
        assert (found["states"] - told[0]).norm() <= 1e-5 * told[0].norm()
    assert backbone.own_sampling is not None
    assert backbone.own_sampling.sampler is not None
    if repository in FLOWS:
        written = json.loads((folder / "scheduler/scheduler_config.json").read_text())
        assert written.keys() == FLOWS[repository].keys()
        assert {**written, "_diffusers_version": 0} == {**FLOWS[repository], "_diffusers_version": 0}


@pytest.mark.slow
@pytest.mark.parametrize("repository", LATER)
def test_a_later_public_pipeline_is_read_as_diffusers_reads_it(repository: str, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    folder = tmp_path / "pipeline"
    folder.mkdir()
    LATER[repository](folder)
    if "Qwen" in repository and qwen_is_old():
        pytest.skip("this diffusers is too old for it, and dmp says so")
    backbone = load_backbone(str(folder))
    pipe = DiffusionPipeline.from_pretrained(folder).to(torch.float32)
    assert backbone.remarks == ()
    assert same_weights(backbone.core, pipe.transformer)
    early = peek_backbone(str(folder))
    assert early is not None
    assert early.sizes == backbone.sizes
    assert "vae" in str(load_codec(None, backbone).record.kind)
    assert same_text(backbone, pipe)
    assert backbone.own_sampling is not None
    assert backbone.own_sampling.sampler is not None
    assert None not in (backbone.own_sampling.steps, early.family)


def same_text(backbone: Backbone, pipe: Any) -> bool:
    """Whether the weights of the text encoders are those that diffusers loads."""
    encoders = backbone.captions.encoder
    assert isinstance(encoders, PipelineEncoders)
    return all(same_weights(model, getattr(pipe, part)) for part, model in encoders.models.items())


@pytest.mark.parametrize("what", TOLD_FLOWS)
def test_bare_weights_are_the_flow_that_is_named(what: str, tmp_path: Path) -> None:
    flow = TOLD_FLOWS[what]
    made = tiny_dit(learn_sigma=flow == "sit")
    path = write_weights(tmp_path / "bare.pt", made.state_dict())
    backbone = load_backbone(str(path), **TOLD, objective=flow)
    assert same_weights(backbone, made)
    assert backbone.schedule.flow == flow
    assert load_backbone(str(path), **TOLD).schedule.flow is None
