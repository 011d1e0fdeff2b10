"""The README's commands parse, its Python runs, its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from dmp_cli.backbones import load_backbone
from dmp_cli.cli import app
from dmp_cli.config import CodecRecord, PatchConfig
from dmp_cli.latents.loading import load_codec
from dmp_cli.patching.attachment import attach, create_patch
from dmp_cli.patching.file import save_patch
from tests.backbones.pipelines import tiny_vae, write_captioned, write_stock_pipeline
from tests.builders import diffusers_dit

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
METHOD = (ROOT / "docs" / "method.md").read_text()
ABLATIONS = (ROOT / "docs" / "ablations.md").read_text()
SCORES = (ROOT / "docs" / "scores.md").read_text()
GATES = (ROOT / "docs" / "gates.md").read_text()
TRAINING = (ROOT / "docs" / "training.md").read_text()
GUIDANCE = (ROOT / "docs" / "guidance.md").read_text()
TUNING = (ROOT / "docs" / "tuning.md").read_text()
INDEX = (ROOT / "docs" / "index.md").read_text()
HUB = (ROOT / "docs" / "hub.md").read_text()
MEMORY = (ROOT / "docs" / "memory.md").read_text()
BY_HAND = (ROOT / "docs" / "by-hand.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str, *, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str = README) -> list[str]:
    """Its dmp commands, without what starts them in many processes."""
    lines = re.sub(r"\\\n\s+", "", "\n".join(blocks("bash", text=text))).splitlines()
    bare = [re.sub(r"^(srun |torchrun .* -m |accelerate launch .* -m )", "", line) for line in lines]
    return [re.sub(r"^dmp_cli ", "dmp ", line) for line in bare if re.match(r"dmp(_cli)? ", line)]


def rows_of_the_paper() -> list[str]:
    (backbone,) = re.findall(r'B="(.*?)"', METHOD)
    return [command.replace("$B", backbone) for command in commands(METHOD)]


MISSING = (
    *("does not exist", "No such file or directory", "there is no such file or folder"),
    *("neither a path here nor in the local hub cache", "the hub is not asked", "no weights found for"),
)


@pytest.mark.parametrize(
    "command",
    [
        *commands(),
        *rows_of_the_paper(),
        *(
            c
            for page in (ABLATIONS, TRAINING, SCORES, GATES, GUIDANCE, TUNING, INDEX, HUB, MEMORY, BY_HAND)
            for c in commands(page)
        ),
    ],
)
def test_its_commands_are_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = command.replace("$SLURM_ARRAY_TASK_ID", "3")
    if command == "dmp train --resume -o runs/photos":
        command += " --data photos/"  # there is no run here that knows it
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command, comments=True)[1:]
    result = CliRunner().invoke(app, [*words, "--dry-run", "--json"])
    if any(told in result.stderr for told in MISSING):  # the images or the patch; what was understood is there
        assert result.exit_code == 1
        assert not result.stdout or json.loads(result.stdout)  # what comes before the plan says nothing else
    else:
        assert result.exit_code == 0, result.stderr
    assert not list(tmp_path.iterdir())


def test_every_command_is_shown() -> None:
    shown = {command.split()[1] for command in commands()} | {"demo"}
    assert shown == {
        "patch",
        "train",
        "sample",
        "eval",
        "improve",
        "inspect-gates",
        "convert",
        "ablate",
        "runs",
        "tune",
        "env",
        "demo",
    }


@pytest.mark.slow
def test_its_ten_lines_patch_sample_and_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pipe = write_stock_pipeline(tmp_path / "stable-diffusion")
    write_captioned(tmp_path / "photos")
    found = re.search(r"<!-- ten lines -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    lines = [line for line in found[1].splitlines() if line and not line.startswith(("from ", "import "))]
    assert len(lines) <= 10
    code = found[1].replace("steps=2000, batch_size=8", "steps=2, batch_size=2, lr=0.5").replace("steps=50", "steps=2")
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(code, names)
    assert {path.name for path in tmp_path.iterdir()} >= {"my-patch", "fox.png", "fox-of-the-pipeline.png"}
    assert (tmp_path / "my-patch" / "patch.safetensors").is_file()
    assert len(names["images"]) == 2
    torch.manual_seed(0)
    bare = pipe("a red fox").images[0]
    torch.manual_seed(0)
    assert names["pipe"]("a red fox").images[0].tobytes() != bare.tobytes()


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    patch = create_patch(load_backbone("digits"), PatchConfig(), codec=CodecRecord(), image_size=8)
    with torch.no_grad():
        for prompt in patch.prompts:
            prompt.normal_()
    save_patch(Path("patch.safetensors"), patch)
    _, code, _, _ = blocks("python")
    names: dict[str, object] = {}
    exec(code, names)
    prediction, bare = names["prediction"], names["bare"]
    assert isinstance(prediction, torch.Tensor)
    assert isinstance(bare, torch.Tensor)
    assert not torch.equal(prediction, bare)
    again = load_backbone("digits")
    assert torch.equal(bare, again(names["x"], names["timesteps"], names["labels"]))


def test_its_python_with_a_stock_pipeline_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pipe = write_stock_pipeline(tmp_path / "stable-diffusion")
    backbone = load_backbone("stable-diffusion")
    patch = create_patch(backbone, PatchConfig(), codec=CodecRecord(), image_size=32)
    with torch.no_grad():
        for prompt in patch.prompts:
            prompt.normal_()
    save_patch(Path("sd.safetensors"), patch)
    _, _, code, _ = blocks("python")
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(code, names)
    torch.manual_seed(0)
    bare = pipe("a red fox", num_inference_steps=20).images[0]
    torch.manual_seed(0)
    detached = names["pipe"]("a red fox", num_inference_steps=20).images[0]
    assert detached.tobytes() == bare.tobytes()
    assert names["image"].tobytes() != bare.tobytes()


def test_its_python_with_a_baked_table_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import DDIMScheduler, DiTPipeline

    monkeypatch.chdir(tmp_path)
    stock = diffusers_dit(
        in_channels=4, out_channels=8, num_embeds_ada_norm=1000
    )  # its pipeline calls the null class 1000
    pipe = DiTPipeline(transformer=stock, vae=tiny_vae(), scheduler=DDIMScheduler())
    pipe.save_pretrained("dit-imagenet")
    backbone = load_backbone("dit-imagenet/transformer", trained_with="diffusers")
    codec = load_codec("dit-imagenet", backbone).record
    patch = create_patch(backbone, PatchConfig(), codec=codec, image_size=16)
    with torch.no_grad():
        for prompt in patch.prompts:
            prompt.normal_(std=5)
    save_patch(Path("imagenet.safetensors"), patch)
    (command,) = re.findall(r"`(dmp patch --export imagenet.*?)`", README.replace("\n", " "))
    result = CliRunner().invoke(app, [*shlex.split(command)[1:], "--json"])
    assert result.exit_code == 0, result.stderr
    timesteps = json.loads(result.stdout)["timesteps"]
    *_, code = blocks("python")
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(code, names)
    torch.manual_seed(0)
    bare = pipe(class_labels=[2], num_inference_steps=50).images[0]
    assert names["image"].tobytes() != bare.tobytes()
    x, at = torch.randn(2, 4, 8, 8), torch.full((2,), timesteps[7])
    labels = torch.tensor([1, 3])
    with torch.no_grad():
        found = names["pipe"].transformer(x, timestep=at, class_labels=labels).sample
        expected = attach(backbone, patch)(x, at, labels)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_way_to_start_many_processes_is_shown() -> None:
    lines = "\n".join(blocks("bash", text=TRAINING)).splitlines()
    assert {line.split()[0] for line in lines if line} >= {"dmp", "torchrun", "accelerate", "srun"}


def test_set_up_commands_are_one_line_each() -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines() if "-m venv" in line]
    assert len(lines) == 2
    assert "dmp demo" in lines[0]
    assert "pytest" in lines[1]
