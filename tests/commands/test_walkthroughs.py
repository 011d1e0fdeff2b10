"""The commands of docs/walkthroughs.md as they stand there, on tiny models, with less of what takes long."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmp_cli.backbones import is_size_name
from tests.backbones.flow_pipelines import write_flux_pipeline, write_sd3_pipeline
from tests.backbones.joined_pipelines import qwen_is_old, write_qwen_pipeline, write_sana_pipeline
from tests.backbones.pipelines import tiny_vae, write_captioned, write_xl_pipeline
from tests.builders import tiny_dit, write_images, write_weights

from .conftest import Run, files_in
from .samples import names
from .train_runs import expected_files

PAGE = (Path(__file__).parents[2] / "docs" / "walkthroughs.md").read_text()
WALKS: dict[str, str] = dict(re.findall(r"<!-- walk: (\w+) -->\n```bash\n(.*?)```", PAGE, re.DOTALL))


class Colours(nn.Module):
    """Stands in for Inception: the mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def quick(command: str, *, side: int) -> list[str]:
    """The words of ``command``, as they stand but for what takes long: counts, steps, sizes and Inception.

    Two steps are to show in the images, so their rate is high.
    """
    for pattern, other in (
        (r" -n \d+", " -n 4"),
        (r" --steps \d+", ""),
        (r" --micro-batch-size \d+", " --micro-batch-size 1"),
        (r" --crop \d+", f" --crop {side}"),
        (r"^dmp train ", "dmp train --steps 2 --batch-size 2 --lr 0.5 "),
        (r"^dmp sample ", "dmp sample --steps 2 "),
        (r"^dmp eval ", "dmp eval --features colours.pt "),
    ):
        command = re.sub(pattern, other, command)
    return shlex.split(command)[1:]


def sit(folder: Path) -> int:
    write_weights(folder / "SiT-XL-2-256x256.pt", tiny_dit(in_channels=4).state_dict())
    tiny_vae().save_pretrained(folder / "sd-vae-ft-ema")
    write_images(folder / "imagenet", size=16)
    return 16


def of_text(write: Callable[[Path], Any], name: str, *, side: int = 64) -> Callable[[Path], int]:
    def made(folder: Path) -> int:
        write(folder / name)
        write_captioned(folder / "photos", size=side)
        (folder / "prompts.txt").write_text("a red fox\na blue bird\n")
        return side

    return made


MADE = {
    "sit": sit,
    "sd3": of_text(write_sd3_pipeline, "stable-diffusion-3-medium"),
    "flux": of_text(write_flux_pipeline, "FLUX.1-dev"),
    "sdxl": of_text(write_xl_pipeline, "stable-diffusion-xl-base-1.0"),
    "sana": of_text(write_sana_pipeline, "Sana_1600M_1024px_diffusers", side=128),
    "qwenimage": of_text(write_qwen_pipeline, "Qwen-Image"),
}
# What a tiny model cannot tell: a file of other than the public sizes its heads and classes, a Flux its size.
TOLD = {
    "sit": "--num-classes 4 --num-heads 2",
    "flux": "--image-size 64",
    "qwenimage": "--image-size 64",
}


def test_every_walk_has_a_model() -> None:
    assert set(WALKS) == set(MADE)


def test_names_of_public_sizes_are_known(run: Run) -> None:
    (first, others) = re.findall(r"dmp patch --backbone (\S+) +# also (.*)", PAGE)[0]
    for name in (first, *others.split(", ")):
        if name.startswith("qwen") and qwen_is_old():
            continue
        run("patch", "--backbone", name, "--dry-run")
        assert is_size_name(name)


@pytest.mark.parametrize(
    "walk", [pytest.param(walk, marks=pytest.mark.slow) if walk != "sit" else walk for walk in MADE]
)
def test_four_commands_lead_to_scored_samples(walk: str, run: Run, tmp_path: Path) -> None:
    side = MADE[walk](tmp_path)
    torch.jit.script(Colours()).save(str(tmp_path / "colours.pt"))
    train, *others = [quick(line, side=side) for line in WALKS[walk].splitlines()]
    assert [train[0], *(words[0] for words in others)] == ["train", "sample", "sample", "eval"]
    run(*train, *TOLD.get(walk, "").split(), "-q")
    assert files_in(tmp_path / "runs" / walk) == expected_files(2, learnt={"patch.safetensors"})
    for words in others:
        run(*words, "-q")
    for folder in (walk, f"{walk}-bare"):
        assert {*files_in(tmp_path / "samples" / folder)} == names(4)
    patched, bare = (tmp_path / "samples" / name for name in (walk, f"{walk}-bare"))
    assert (patched / "plan.jsonl").read_bytes() == (bare / "plan.jsonl").read_bytes()  # the same noise and prompts
    assert any((patched / f"00000{i}.png").read_bytes() != (bare / f"00000{i}.png").read_bytes() for i in range(4))
    assert files_in(tmp_path / "scores" / walk) == {"report.json", "report.md", "report.html"}
    report = json.loads((tmp_path / "scores" / walk / "report.json").read_text())
    assert [Path(row["samples"]).name for row in report["rows"]] == [bare.name, patched.name]
