"""The commands on a page are true: typed again elsewhere, they make the same images and the same scores."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import pytest

from dmp_cli.config import EvalConfig
from dmp_cli.evaluation.reproduce import commands_of
from dmp_cli.evaluation.scoring import evaluate

from .conftest import Run, parse


@pytest.mark.parametrize(
    "extra", [["--guidance", 1], ["--classes", "2,0", "--guidance", 2.5, "--seed", 3], ["--plan", "given.jsonl"]]
)
def test_typed_again_they_give_the_same(run: Run, patch: Path, images: Path, tmp_path: Path, extra: list[str]) -> None:
    lines = [{"class": index % 4, "seed": index, "guidance": 1 + index / 4} for index in range(6)]
    (tmp_path / "given.jsonl").write_text("\n".join(map(json.dumps, lines)))
    common = ["sample", "--patch", patch, "-n", 6, "--sampler", "ddim", "--steps", 4, *extra, "-q"]
    run(*common, "--no-patch", "-o", "base")
    run(*common, "--strength", 0.5, "-o", "patched")
    options = ["--samples", "base", "--samples", "patched", "--reference", images, "--features", "pixels"]
    options += ["--metrics", "fid,kid", "--kid-subset-size", 4, "--bootstrap", 3]
    first = parse(run("eval", *options, "-o", "scores", "--json"))
    page = html.unescape((tmp_path / "scores" / "report.html").read_text())
    commands = re.findall(r"dmp (?:sample|eval) --[^<\n]*", page)
    assert len(commands) == 3
    for command in commands[:2]:
        words = shlex.split(command)
        words[words.index("-o") + 1] += "-again"
        run(*words[1:], "-q")
    for folder in ("base", "patched"):
        for index in range(6):
            again = tmp_path / f"{folder}-again" / f"{index:06d}.png"
            assert again.read_bytes() == (tmp_path / folder / again.name).read_bytes()
    words = [word + "-again" if word in ("base", "patched") else word for word in shlex.split(commands[2])[1:]]
    second = parse(run(*words, "-o", "again", "--json"))
    assert [row["scores"] for row in second["rows"]] == [row["scores"] for row in first["rows"]]


def test_a_folder_that_does_not_say_has_no_command(run: Run, images: Path) -> None:
    config = EvalConfig(samples=(images,), reference=images, features="pixels", bootstrap=0)
    words = ["--samples", str(images), "--reference", str(images), "--features", "pixels", "--bootstrap", "0"]
    assert commands_of(evaluate(config), config) == shlex.join(["dmp", "eval", *words])


def test_a_bare_backbone_is_named_as_it_was(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    run("sample", *backbone, "-n", 4, "--sampler", "ddim", "--steps", 3, "-o", "bare", "-q")
    config = EvalConfig(samples=(Path("bare"),), reference=images, features="pixels", bootstrap=0)
    words = shlex.split(commands_of(evaluate(config), config).splitlines()[0])
    words[words.index("-o") + 1] = "again"
    run(*words[1:], "-q")
    for index in range(4):
        name = f"{index:06d}.png"
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "bare" / name).read_bytes()
