"""``--sampler`` through the commands: the pipeline's own as default, names, records, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.backbones.pipelines import tiny_unet, write_captioned, write_pipeline
from tests.commands.conftest import Run, parse

TEXT = ("--prompt", "a red fox", "--steps", 4, "--grid", "1x1", "-q")


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    own = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "steps_offset": 1}
    return write_pipeline(tmp_path / "pipeline", tiny_unet(sample_size=8), **own)


def made(folder: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(folder, "samples.json").read_text())["made"]["sample"]
    return content


def test_the_pipelines_own_is_the_default(run: Run, pipeline: Path) -> None:
    how = ["sample", "--backbone", pipeline, "--prompt", "a red fox", "--steps", 4, "--grid", "1x1", "-n", 1]
    shown = run(*how, "--json", "-o", "own")
    line = "the pipeline's own: PNDM, 50 steps, guidance 7.5; here: its scheduler, 4 steps, guidance 7.5"
    assert line in shown.stderr.replace("\n", " ")
    stock = {"scheduler": "PNDMScheduler", "steps": 50, "guidance": 7.5}
    assert parse(shown)["pipeline"] == stock
    assert made("own")["sampler"] == "pipeline"
    expected = {"kind": "PNDMScheduler", "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}
    assert made("own")["scheduler"] == {**expected, "timestep_spacing": "leading"}
    planned = parse(run(*how, "--json", "--dry-run", "-o", "never"))
    assert (planned["pipeline"], planned["sample"]["sampler"]) == (stock, "pipeline")
    run(*how, "--sampler", "pipeline", "-q", "-o", "named")
    run(*how, "--sampler", "ddpm", "-q", "-o", "ddpm")
    own, named, ddpm = (Path(name, "000000.png").read_bytes() for name in ("own", "named", "ddpm"))
    assert own == named != ddpm
    assert "scheduler" not in made("ddpm")


def test_a_folder_goes_on_with_its_sampler(run: Run, pipeline: Path) -> None:
    """Also one that was begun before there was --sampler pipeline, whose record says ddpm."""
    how = ["sample", "--backbone", pipeline, *TEXT, "--batch-size", 2]
    run(*how, "-n", 1, "--sampler", "euler-a", "-o", "begun")
    run(*how, "-n", 3, "-o", "begun")
    run(*how, "-n", 3, "--sampler", "euler-a", "-o", "straight")
    for index in range(3):
        name = f"{index:06d}.png"
        assert Path("begun", name).read_bytes() == Path("straight", name).read_bytes()
    assert "other settings" in run(*how, "-n", 3, "--sampler", "heun", "-o", "begun", code=1).stderr
    record = Path("begun/samples.json")
    record.write_text(record.read_text().replace('"euler-a"', '"forged"'))
    assert "other settings" in run(*how, "-n", 3, "-o", "begun", code=1).stderr


def test_another_scheduler_in_the_pipeline_makes_other_samples(run: Run, pipeline: Path) -> None:
    how = ["sample", "--backbone", pipeline, *TEXT]
    run(*how, "-n", 1, "-o", "begun")
    path = pipeline / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "DEISMultistepScheduler"}))
    refused = run(*how, "-n", 2, "-o", "begun", code=1).stderr
    assert "holds samples made with other settings" in refused


def test_refused_before_weights_are_read(run: Run, pipeline: Path, backbone: list[str], checkpoint: Path) -> None:
    weights = next((pipeline / "unet").glob("*.safetensors"))
    weights.write_bytes(b"no weights")
    how = ["sample", "--backbone", pipeline, "--prompt", "a fox", "-o", "never"]
    assert "euler takes at most 1000" in run(*how, "--sampler", "euler", "--steps", 1001, code=1).stderr
    assert "PNDMScheduler takes at most 1000" in run(*how, "--sampler", "pipeline", "--steps", 1001, code=1).stderr
    checkpoint.write_bytes(b"no weights")
    refused = run("sample", *backbone, "--sampler", "pipeline", "-o", "never", code=1).stderr
    assert refused.startswith("error: --sampler pipeline: the weights come from no pipeline folder")
    assert not Path("never").exists()


def test_a_scheduler_that_cannot_be_followed_is_no_default(run: Run, pipeline: Path) -> None:
    path = pipeline / "scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "SASolverScheduler"}))
    how = ["sample", "--backbone", pipeline, "--prompt", "a red fox", "--steps", 4, "--grid", "1x1", "-n", 1]
    shown = run(*how, "-o", "drawn").stderr.replace("\n", " ")
    assert "the pipeline's own: SASolver, 50 steps, guidance 7.5 (SASolverScheduler cannot be followed" in shown
    assert made("drawn")["sampler"] == "ddpm"
    refused = run(*how, "--sampler", "pipeline", "-o", "never", code=1).stderr
    assert "SASolverScheduler cannot be followed faithfully" in refused
    assert "--sampler euler-a" in refused


def test_a_table_over_fractions(run: Run, pipeline: Path) -> None:
    from safetensors import safe_open

    from dmp_cli.patching import load_patch, save_patch

    run("patch", "--backbone", pipeline, "-q", "-o", "fresh.safetensors")
    patch = load_patch(Path("fresh.safetensors"))
    with torch.no_grad():
        for parameter in patch.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    save_patch(Path("patch.safetensors"), patch)
    table = parse(run("patch", "--export", "patch.safetensors", "--sampler", "heun", "--steps", 3, "--json", "-o", "t"))
    assert table["timesteps"] == [999, 499.5, 499.5, 0, 0]
    with safe_open("t", framework="pt") as file:
        assert json.loads(file.metadata()["dmp.table"])["timesteps"] == table["timesteps"]
        weights = [file.get_tensor(name) for name in file.keys() if name.startswith("weights")]  # noqa: SIM118
    assert all(bool((one[1] == one[2]).all() and (one[0] != one[1]).any()) for one in weights)
    assert parse(run("patch", "--export", "patch.safetensors", "--steps", 4, "--json", "-o", "own"))["timesteps"] == [
        *(751, 501, 501, 251, 1),
    ]


def test_what_makes_sets_refuses_early(run: Run, tmp_path: Path) -> None:
    refused = run("improve", "--backbone", "digits", "--sampler", "pipeline", "-o", "i", code=1).stderr
    assert refused.startswith("error: --sampler pipeline: the weights come from no pipeline folder")
    how = ["tune", "--backbone", "digits", "--by", "kid", "--sampler", "euler", "--sampling-steps", 1001, "-o", "t"]
    assert "euler takes at most 1000" in run(*how, code=1).stderr
    assert not [path for path in (Path("i"), Path("t")) if path.exists()]


def test_comparisons_keep_one_sampler(run: Run, pipeline: Path, tmp_path: Path) -> None:
    images = write_captioned(tmp_path / "images", count=2)
    Path("prompts.jsonl").write_text('{"text": "a fox"}\n')
    how = ["--backbone", pipeline, "--data", images, "--dry-run", "-n", 2, "--prompts", "prompts.jsonl", "-o", "a"]
    commands = parse(run("ablate", "table4", *how, "--json"))["commands"]
    assert all("--sampler ddpm" in line for line in commands if " sample " in f" {line}")
    run("ablate", "table4", *how, "--sampler", "pipeline")
    Path("arms.toml").write_text('[[arm]]\nname = "all"\nmethod = "full"\n')
    refused = run("ablate", "arms.toml", *how, "--sampler", "pipeline", code=1).stderr
    assert "--sampler pipeline: the weights that --method full trains are part of no pipeline" in refused
