"""Stable Diffusion 3 and Flux through the commands: what is refused, what is said, and how many prompts there are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dmp_cli import load_patch
from dmp_cli.backbones import sources
from tests.backbones.flow_pipelines import write_flux_pipeline, write_sd3_pipeline
from tests.backbones.joined_pipelines import write_lumina2_pipeline
from tests.backbones.pipelines import STABLE_DIFFUSION, tiny_pixart, write_captioned, write_pipeline
from tests.builders import write_images

from .conftest import Run, parse

FEW = ("--steps", 2, "--batch-size", 2, "--lr", 0.01, "--sample-every", 0, "-q")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("flows")
    write_sd3_pipeline(place / "sd3")
    write_flux_pipeline(place / "flux")
    return {"sd3": place / "sd3", "flux": place / "flux"}


def changed(folder: Path, place: Path, file: str, **changes: Any) -> Path:
    """A copy of a pipeline in which fields of one of its JSON files have other values."""
    shutil.copytree(folder, place)
    content = json.loads((place / file).read_text())
    (place / file).write_text(json.dumps({**content, **changes}))
    return place


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("sd3", ["--gate-input", "conditioning"], "--gate-input conditioning: this backbone takes no class"),
        ("sd3", ["--objective", "epsilon"], "--objective epsilon contradicts"),
        ("sd3", ["--objective", "sit"], "--objective sit contradicts"),
        ("flux", ["--position", "prepend"], "--position prepend: the blocks of this backbone take as many tokens"),
        ("flux", ["--loss-weight", "min-snr"], "--loss-weight min-snr"),
    ],
)
def test_what_a_folder_tells_is_refused_before_weights_are_read(
    family: str,
    options: list[Any],
    message: str,
    folders: dict[str, Path],
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(*given: Any, **named: Any) -> None:
        raise AssertionError("weights are read before the options are checked")

    monkeypatch.setattr(sources, "read_weights", read)
    assert_refused(family, [*options, "--image-size", 64], message, folders, run, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-size", 24], "--image-size 24: the codec and the backbone need a multiple of 16 pixels"),
        (["--image-size", 208], "--image-size 208: this backbone has positions for 192 pixels and no more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    options: list[Any], message: str, folders: dict[str, Path], run: Run, tmp_path: Path
) -> None:
    assert_refused("sd3", options, message, folders, run, tmp_path)


def assert_refused(
    family: str, options: list[Any], message: str, folders: dict[str, Path], run: Run, tmp_path: Path
) -> None:
    """Training ends in one sentence, with nothing written."""
    write_captioned(tmp_path / "images", count=4, size=64)
    said = run("train", "--backbone", folders[family], "--data", "images", *FEW, *options, "-o", "out", code=1)
    assert message in said.stderr
    assert len(said.stderr.strip().splitlines()) <= 3  # the sentence, and a hint
    assert not Path("out").exists()


def test_captions_are_needed_and_a_class_model_has_none(folders: dict[str, Path], run: Run, tmp_path: Path) -> None:
    write_images(tmp_path / "classes", size=64)
    said = run("train", "--backbone", folders["sd3"], "--data", "classes", *FEW, "-o", "out", code=1).stderr
    assert "this backbone reads text" in said
    draw = ["sample", "--backbone", "digits", "--prompt", "a red fox", "-n", 1, "-o", "out"]
    assert "are for backbones that read text" in run(*draw, code=1).stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sampler", "ddim"], "--sampler ddim removes the noise of a DDPM, and this backbone is a flow (rectified)"),
        (["--sampler", "sde-euler"], "--sampler sde-euler is for another kind of flow"),
        (["--prompts", "negative.txt"], "a negative prompt needs a null condition, which this backbone lacks"),
        (["--guidance-interval", "0.2,0.8"], "--guidance-interval: this backbone reads the scale of guidance itself"),
    ],
)
def test_sampling_of_flux_is_refused_in_one_sentence(
    options: list[Any], message: str, folders: dict[str, Path], run: Run, tmp_path: Path
) -> None:
    (tmp_path / "negative.txt").write_text("a red fox --n two cats\n")
    prompt = [] if "--prompts" in options else ["--prompt", "a red fox"]
    draw = ["sample", "--backbone", folders["flux"], "--image-size", 64, *prompt, "-n", 1, "--steps", 2]
    said = run(*draw, *options, "-o", "out", code=1).stderr
    assert message in said


def test_negative_prompts_that_are_encoded_in_another_way_are_refused_in_plans_too(run: Run, tmp_path: Path) -> None:
    write_lumina2_pipeline(tmp_path / "lumina")
    (tmp_path / "negative.txt").write_text("a red fox --n two cats\n")
    plan = {"prompt": "a red fox", "guidance": 4.0, "negative": "two cats"}
    (tmp_path / "plan.jsonl").write_text(json.dumps(plan) + "\n")
    draw = ["sample", "--backbone", "lumina", "-n", 1, "--steps", 2, "-o", "out"]
    for how in (["--prompts", "negative.txt"], ["--plan", "plan.jsonl"]):
        assert "encodes negative prompts in another way" in run(*draw, *how, code=1).stderr
    assert not list(tmp_path.glob("out/*.png"))


def test_guidance_is_read_inside(folders: dict[str, Path], run: Run) -> None:
    draw = ["sample", "--backbone", folders["flux"], "--image-size", 64, "--prompt", "a red fox", "-n", 1, "--steps", 2]
    told = run(*draw, "-o", "own").stderr
    assert "guidance 3.5" in told
    run(*draw, "--guidance", 3.5, "-o", "named", "-q")
    run(*draw, "--guidance", 1.5, "-o", "less", "-q")
    own, named, less = (Path(name, "000000.png").read_bytes() for name in ("own", "named", "less"))
    assert own == named
    assert own != less


def test_a_scheduler_of_another_kind(folders: dict[str, Path], run: Run, tmp_path: Path) -> None:
    file = "scheduler/scheduler_config.json"
    wrong = changed(folders["sd3"], tmp_path / "wrong", "model_index.json")
    (wrong / file).write_text(json.dumps({"_class_name": "DDIMScheduler", **STABLE_DIFFUSION}))
    draw = ["--prompt", "a red fox", "-n", 1, "--steps", 2, "-o", "out"]
    said = run("sample", "--backbone", wrong, *draw, code=1).stderr
    assert "is a DDIMScheduler, and a sd3 is a flow" in said
    noisy = changed(folders["sd3"], tmp_path / "noisy", file, stochastic_sampling=True)
    said = run("sample", "--backbone", noisy, *draw, "--sampler", "pipeline", code=1).stderr
    assert "stochastic_sampling" in said
    run("sample", "--backbone", noisy, *draw, "-q")  # flow-euler as published is the default then


def test_settings_of_a_pipeline_reach_a_file_of_all_weights(folders: dict[str, Path], run: Run, tmp_path: Path) -> None:
    other = changed(folders["sd3"], tmp_path / "other", "scheduler/scheduler_config.json", shift=7.0)
    write_captioned(tmp_path / "images", count=4, size=64)
    run("train", "--backbone", other, "--data", "images", *FEW, "--method", "full", "--lr", 1e-9, "-o", "full")
    draw = ["--prompt", "a red fox", "-n", 1, "--steps", 3, "--guidance", 1, "--sampler", "flow-euler", "-q"]
    run("sample", "--backbone", "full/backbone.safetensors", *draw, "-o", "ours")
    told = json.loads(Path("ours/samples.json").read_text())
    assert told["made"]["sample"]["scheduler"]["shift"] == 7.0


class TestGridOfPrompts:
    """A row for each token where that is small, and a grid of their own where it is not."""

    @pytest.mark.parametrize("side", [32, 64])
    def test_the_default(self, side: int, run: Run, tmp_path: Path) -> None:
        write_pipeline(tmp_path / "pixart", tiny_pixart(sample_size=side), text="t5")
        told = parse(run("patch", "--backbone", "pixart", "--json"))
        assert told["blocks"][0]["hidden_shape"] == [(side // 2) ** 2, 16]
        assert told["blocks"][0]["prompts"] == [256, 16]

    def test_it_is_recorded_and_gone_on_with(self, run: Run, tmp_path: Path) -> None:
        write_pipeline(tmp_path / "pixart", tiny_pixart(sample_size=64), text="t5")
        write_captioned(tmp_path / "images", count=4, size=128)
        train = ["train", "--backbone", "pixart", "--data", "images", *FEW]
        run(*train, "-o", "new")
        assert load_patch(Path("new/patch.safetensors")).config.prompt_grid == (16, 16)
        assert json.loads(Path("new/config.json").read_text())["patch"]["prompt_grid"] == [16, 16]
        run("train", "--resume", "-o", "new", "--steps", 3, "-q")
        # as a run of an earlier version left it: with a row for each token, and no word of it
        run(*train, "--prompt-grid", "tokens", "-o", "old")
        config = json.loads(Path("old/config.json").read_text())
        assert "prompt_grid" not in config["patch"]
        del config["options"]["prompt_grid"]
        Path("old/config.json").write_text(json.dumps(config))
        run("train", "--resume", "-o", "old", "--steps", 3, "-q")
        patch = load_patch(Path("old/patch.safetensors"))
        assert patch.config.prompt_grid is None
        assert patch.num_prompts == 32 * 32
