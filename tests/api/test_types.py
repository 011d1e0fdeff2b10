"""What a type checker makes of a program that uses the package: arguments are checked, results are known."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import dmp_cli

PROGRAM = """
from dmp_cli import EvalConfig, Patch, PatchConfig, Prompt, SampleConfig, TrainConfig
from dmp_cli import attach, create_patch, load_backbone, merge, sample, train

backbone = load_backbone("digits")
patched = train(backbone, "images", TrainConfig(steps=3), patch=PatchConfig(gate="constant"))
reveal_type(patched)
reveal_type(Patch.from_pretrained("x"))
sample(patched, n=3, prompts=[Prompt(text="a fox", seed=3)])[0].save("x.png")
attach(backbone, create_patch(backbone))
merge(patched, steps=10)["prompts.0"].mean()
SampleConfig(steps=3)
TrainConfig(steps="three")
PatchConfig(gate="square")
sample(patched, n="many")
"""


@pytest.mark.slow
def test_a_checker_knows_arguments_and_results(tmp_path: Path) -> None:
    assert Path(dmp_cli.__file__).with_name("py.typed").is_file()
    (tmp_path / "use.py").write_text(PROGRAM)
    large = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in ("torch", "scipy", "matplotlib"))
    settings = tmp_path / "mypy.ini"  # without the plugin of pydantic, which users do not have
    settings.write_text(f"[mypy]\nfollow_imports = silent\nignore_missing_imports = True\n{large}")
    command = [sys.executable, "-m", "mypy", "--config-file", str(settings), "--cache-dir", str(tmp_path / "cache")]
    command += [str(tmp_path / "use.py")]
    root = Path(dmp_cli.__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    told = [re.sub(r"^.*use\.py:", "", line) for line in done.stdout.splitlines() if "use.py" in line]
    assert len(told) == 5, done.stdout + done.stderr
    assert told[0].endswith('Revealed type is "dmp_cli.patching.patched.PatchedBackbone"')
    assert told[1].endswith('Revealed type is "dmp_cli.patching.prompts.Patch"')
    lines = PROGRAM.splitlines()
    wrong = [lines[int(line.split(":")[0]) - 1] for line in told[2:]]
    assert wrong == lines[-3:]
