"""Negative prompts: against diffusers' own pipeline; records of samples without them stay as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dmp_cli.backbones import load_backbone
from dmp_cli.config import PlanLine, Prompt, SampleConfig
from dmp_cli.errors import ConfigError
from dmp_cli.latents import load_codec
from dmp_cli.runtime import randomness
from dmp_cli.sampling.long_captions import find_long
from dmp_cli.sampling.plan import Plan, read_plan
from dmp_cli.sampling.sampler import resolve, sample
from tests.backbones.pipelines import write_stock_pipeline
from tests.builders import tiny_dit


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    write_stock_pipeline(folder)
    return folder


def test_images_are_those_of_the_stock_pipeline(pipeline: Path) -> None:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(pipeline)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, steps_offset=0, set_alpha_to_one=True)
    pipe.set_progress_bar_config(disable=True)
    backbone = load_backbone(str(pipeline))
    prompts = (Prompt(text="a red fox", negative="two cats"), Prompt(text="two cats"), Prompt(text="", negative="fox"))
    config = SampleConfig(num_images=3, batch_size=3, sampler="ddim", steps=5, guidance=7.5, prompts=prompts)
    (ours,) = sample(backbone, backbone=backbone, codec=load_codec(None, backbone), config=resolve(config, backbone))
    starts = torch.cat([randomness.normal("start", (4, 16, 16), seed=0, indices=[index]) for index in range(3)])
    theirs = pipe(
        [prompt.text for prompt in prompts],
        negative_prompt=[prompt.negative or "" for prompt in prompts],
        latents=starts,
        num_inference_steps=5,
        guidance_scale=7.5,
        output_type="np",
    ).images
    for own, other in zip(ours, theirs, strict=True):
        assert np.abs(own.pixels / 255 - other).max() <= 1 / 255
    bare = config.model_copy(update={"prompts": tuple(Prompt(text=prompt.text) for prompt in prompts)})
    (without,) = sample(backbone, backbone=backbone, codec=load_codec(None, backbone), config=resolve(bare, backbone))
    same = [np.array_equal(one.pixels, other.pixels) for one, other in zip(ours, without, strict=True)]
    assert same == [False, True, False]


def test_records_without_one_stay_as_they_were(tmp_path: Path) -> None:
    assert Prompt(text="a").model_dump() == {"text": "a", "seed": None, "guidance": None}
    before = '{"seed":1,"place":null,"label":null,"prompt":"a","guidance":null}'
    assert PlanLine(seed=1, prompt="a").model_dump_json() == before  # the digest of a plan is over these lines
    config = SampleConfig(num_images=2, prompts=(Prompt(text="a", negative="b"), Prompt(text="c")))
    lines = '{"index": 0, "seed": 0, "place": 0, "prompt": "a", "negative": "b", "guidance": 1.0}\n'
    lines += '{"index": 1, "seed": 0, "place": 1, "prompt": "c", "guidance": 1.0}\n'
    plan = Plan(config)
    assert plan.text(2) == lines
    (tmp_path / "plan.jsonl").write_text(lines)
    again = Plan(config, read_plan(tmp_path / "plan.jsonl"))
    assert [again.item(index) for index in range(2)] == [plan.item(index) for index in range(2)]


def test_one_that_can_do_nothing_is_refused(pipeline: Path) -> None:
    backbone = load_backbone(str(pipeline))
    for prompt in (Prompt(text="a", negative="b", guidance=1), Prompt(text="a", negative="b")):
        with pytest.raises(ConfigError, match="the negative prompt 'b' does nothing: guidance is off"):
            resolve(SampleConfig(prompts=(prompt,)), backbone)
    resolve(SampleConfig(prompts=(Prompt(text="a", negative="b", guidance=3),)), backbone)
    line = PlanLine(prompt="a", negative="b")
    with pytest.raises(
        ConfigError, match="line 1 of the plan: a negative prompt needs text and a guidance other than 1"
    ):
        Plan(SampleConfig(num_images=1), (line,)).check(backbone)
    with pytest.raises(ConfigError, match="line 1 of the plan"):
        Plan(SampleConfig(num_images=1, guidance=2), (PlanLine(label=0, negative="b"),)).check(tiny_dit())


def test_long_captions_are_counted_and_the_rest_is_shown(pipeline: Path) -> None:
    backbone = load_backbone(str(pipeline))
    encoder = backbone.captions.encoder
    word = "fox "
    room = next(n for n in range(1, 99) if len(encoder.tokenizer(word * n)["input_ids"]) > encoder.length) - 1
    whole, long = (word * room).strip(), (word * room + "two cats").strip()
    found = find_long([whole, long, "", long + " red"], backbone)
    assert (found.found, found.total, found.first, found.length) == (2, 4, long, encoder.length)
    read = encoder.tokenizer(long, truncation=True, max_length=encoder.length)["input_ids"]
    kept = encoder.tokenizer.decode(read, skip_special_tokens=True)
    assert (kept + found.cut).replace(" ", "") == long.replace(" ", "")
    assert found.cut.endswith("cats")
    assert find_long([whole, ""], backbone).found == 0
    assert found.in_words("captions") == (
        f"2 of 4 captions are longer than the {encoder.length} tokens that the text encoder reads; "
        f"of the first it does not read: {found.cut}"
    )
    alone = find_long([long], backbone).in_words("prompts")
    assert alone == f"the text encoder reads {encoder.length} tokens; it does not read: {found.cut}"
