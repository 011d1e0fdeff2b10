"""Errors in the words of Python: no option of the command line stands in what a Python user reads."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import dmp_cli
from dmp_cli import (
    DMPError,
    EvalConfig,
    NetworkOptions,
    PatchConfig,
    SampleConfig,
    TrainConfig,
    attach,
    create_patch,
    evaluate,
    guide,
    load_adapted,
    load_backbone,
    load_bare,
    load_patch,
    load_patched,
    merge,
    sample,
)
from dmp_cli.backbones import Backbone
from dmp_cli.errors import ConfigError, in_python
from tests.backbones.flow_pipelines import write_sd3_pipeline
from tests.builders import TOLD, filled_patch, tiny_dit, write_images, write_meta_checkpoint
from tests.commands.conftest import Run

ROOT = Path(dmp_cli.__file__).parent
OF_COMMANDS = {"commands", "config", "cli.py", "errors.py", "tuning", "ablation", "improvement", "demo"}
OPTION = re.compile(r"(?<![\w-])--[a-z]|(?<![\w-])-[on]\b")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--image-size 16: this backbone", "image_size=16: this backbone"),
        ("--vae none: the backbone has 4 channels", "vae='none': the backbone has 4 channels"),
        ("Give that codec with --vae.", "Give that codec with vae."),
        ("--adapter needs peft", "load_adapted(path, ...) needs peft"),
        ("accept these with --force-backbone", "accept these with attach(..., force=True)"),
        ("Check the path of --patch, or", "Check the path of load_patch(path), or"),
        ("for example --backbone dit-b2.", "for example load_backbone('dit-b2')."),
        ("continue with --resume", "continue with resume=True"),
        ("encode live with --no-latent-store.", "encode live with latent_store=False."),
        ("Leave it out (--n).", "Leave it out (Prompt(negative=...))."),
        ("-n 40: the plan has 4 lines", "n=40: the plan has 4 lines"),
        ("Give another output with -o.", "Give another output with output=...."),
        ("--lr 'x': Input", "lr='x': Input"),
        ("Give --prompt TEXT or --prompts FILE.", "Give prompts=TEXT or prompts=[TEXT, ...]."),
        ("--prompt and --prompts are for", "prompts are for"),
        ("Use --method dmp --gate constant.", "Use method='dmp' gate='constant'."),
        (
            "--sampler euler-a or --sampler dpm++, with --steps 5.",
            "sampler='euler-a' or sampler='dpm++', with steps=5.",
        ),
        ("a run -- of /a/--b/c-n.png, x--y", "a run -- of /a/--b/c-n.png, x--y"),
    ],
)
def test_options_become_arguments(typed: str, said: str) -> None:
    assert in_python(typed) == said
    error = ConfigError("it is so", hint=typed)
    assert str(error) == f"it is so\n{said}"
    assert error.told() == f"it is so\n{typed}"
    assert typed not in repr(error) or typed == said


def texts() -> list[str]:
    """Every text in the engine that has options of the command line in it, with a number for each value of its own."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        if path.relative_to(ROOT).parts[0] in (
            "commands",
            "config",
            "cli.py",
            "errors.py",
            "tuning",
            "ablation",
            "demo",
        ):
            continue
        tree = ast.parse(path.read_text())
        raised = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
        for node in (inner for one in raised for inner in ast.walk(one)):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "7" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return [text for text in found if OPTION.search(text)]


def test_no_option_is_left_in_any_text_of_the_engine() -> None:
    known = texts()
    assert len(known) > 150
    left = [in_python(text) for text in known if OPTION.search(in_python(text))]
    assert not left


def refusals(place: Path) -> dict[str, Callable[[], Any]]:
    """Mistakes that Python users make, by name."""
    checkpoint = write_meta_checkpoint(place / "tiny.pt", tiny_dit())
    other = write_meta_checkpoint(place / "other.pt", tiny_dit(seed=1))
    images, broken = write_images(place / "images"), place / "broken.safetensors"
    save_file({"x": torch.zeros(1)}, broken)

    def load(path: Path = checkpoint, **more: Any) -> Backbone:
        return load_backbone(str(path), **{**TOLD, **more})

    def kept() -> Path:
        backbone = load()
        return filled_patch(backbone).save_pretrained(place / "p.safetensors")

    def conditioned() -> Any:
        backbone = load()
        return attach(backbone, create_patch(backbone, PatchConfig(gate_input="conditioning")))

    return {
        "no file": lambda: load_patch(place / "none.safetensors"),
        "no patch": lambda: load_patch(broken),
        "other weights": lambda: attach(load(other), load_patch(kept())),
        "no hub": lambda: load_backbone("someone/something"),
        "no name": lambda: load_backbone("dit-xl2"),
        "no path": lambda: load_backbone("./nowhere/backbone.pt"),
        "heads": lambda: load(num_heads=3),
        "classes": lambda: load_backbone(str(checkpoint)),
        "objective": lambda: load_bare(NetworkOptions(objective="flow"), "cpu"),  # type: ignore[arg-type]
        "image size": lambda: sample(load(), image_size=13),
        "text": lambda: load(text=place),
        "depth": lambda: create_patch(load(), PatchConfig(depth=99)),
        "top k": lambda: PatchConfig(top_k=3),
        "gate": lambda: PatchConfig(gate="square"),  # type: ignore[arg-type]
        "lr": lambda: TrainConfig(lr=-1),
        "steps": lambda: TrainConfig(steps=0),
        "quantize": lambda: TrainConfig(quantize="int8", method="full"),
        "val": lambda: TrainConfig(val_split=0.1, val_data=images),
        "interval": lambda: SampleConfig(guidance_interval=(0.9, 0.1)),
        "metric": lambda: EvalConfig(samples=(images,), reference=images, metrics=("nice",)),
        "network": lambda: load_bare(NetworkOptions(), "cpu"),
        "vae": lambda: load_bare(NetworkOptions(backbone=str(checkpoint), vae="./nowhere", **TOLD), "cpu"),
        "codec": lambda: load_patched(kept(), NetworkOptions(vae=str(place)), "cpu"),
        "adapter": lambda: load_adapted(broken, NetworkOptions(backbone=str(checkpoint), **TOLD), "cpu"),
        "guidance": lambda: sample(load(), sampler="heun", steps=3000),
        "balanced": lambda: sample(load(), n=5, balanced=True),
        "scores": lambda: evaluate(place / "nothing", images),
        "features": lambda: evaluate(images, images),
        "crop": lambda: evaluate(images, images, features="pixels", crop="none", repeats=100),
        "merge": lambda: merge(conditioned()),
        "two": lambda: attach(conditioned(), filled_patch(tiny_dit())),
        "prepend": lambda: (
            lambda b: attach(attach(b, filled_patch(b)), filled_patch(b, position="prepend"), name="b")
        )(load()),
        "guide": lambda: guide(load(), against=None),
        "text encoder": lambda: sample(load_backbone(str(write_sd3_pipeline(place / "sd3") and place / "sd3"))),
    }


def test_mistakes_are_told_in_the_words_of_python(tmp_path: Path) -> None:
    for name, mistake in refusals(tmp_path).items():
        try:
            mistake()
        except DMPError as error:
            shown = str(error).replace(str(tmp_path), "")
            assert not OPTION.search(shown), f"{name}: {shown}"
        else:
            raise AssertionError(f"{name} is no mistake")


def test_the_command_line_speaks_of_options(run: Run, tmp_path: Path) -> None:
    checkpoint = write_meta_checkpoint(tmp_path / "tiny.pt", tiny_dit())
    named = ("--backbone", checkpoint, "--num-classes", 4, "--num-heads", 2)
    assert "error: --depth 99: this backbone has 3 blocks" in run("patch", *named, "--depth", 99, code=1).stderr
    assert "--top-k is for --selection hard" in run("patch", *named, "--top-k", 9, code=1).stderr
