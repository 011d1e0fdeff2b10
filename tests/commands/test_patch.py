"""``dmp patch``: the table, the zero patch, the authors' patches, and what it says of a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dmp_cli.backbones import load_backbone
from dmp_cli.config import PatchConfig
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.file import load_patch
from tests.builders import authors_patch, call_of, tiny_dit, write_authors_checkpoint

from .conftest import Run, files_in, parse


@pytest.mark.parametrize(
    ("name", "backbone", "patch", "per_cent"),
    [
        ("dit-b2", 130_512_416, 2_556_416, 1.9588),
        ("DiT-L/2", 458_102_816, 6_554_112, 1.4307),
        ("dit-xl2", 675_129_632, 8_552_960, 1.2669),
    ],
)
def test_table_1_without_weights(name: str, backbone: int, patch: int, per_cent: float, run: Run) -> None:
    result = parse(run("patch", "--backbone", name, "--json"))
    assert (result["backbone_parameters"], result["patch_parameters"]) == (backbone, patch)
    assert result["per_cent"] == pytest.approx(per_cent, abs=5e-5)
    shown = run("patch", "--backbone", name).stdout
    assert f"{patch:,}" in shown
    assert f"+{per_cent:.4f} %" in shown


def test_a_zero_patch_is_written_and_changes_nothing(
    run: Run, backbone: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    result = parse(run("patch", *backbone, "-o", "new.safetensors", "--json"))
    assert result["output"] == "new.safetensors"
    assert files_in(tmp_path) == {"tiny.pt", "new.safetensors"}
    loaded = load_backbone(str(checkpoint), num_classes=4, num_heads=2)
    x, timesteps, labels = torch.randn(2, 3, 8, 8), torch.tensor([3, 900]), torch.tensor([0, 4])
    with torch.no_grad():
        bare = loaded(x, timesteps, labels)
        patched = attach(loaded, load_patch(tmp_path / "new.safetensors"))
        assert torch.equal(patched(x, timesteps, labels), bare)


def test_existing_files_are_kept(run: Run, backbone: list[str], tmp_path: Path) -> None:
    run("patch", *backbone, "-o", "new.safetensors")
    before = (tmp_path / "new.safetensors").read_bytes()
    assert "exists already" in run("patch", *backbone, "-o", "new.safetensors", "--seed", 5, code=1).stderr
    assert (tmp_path / "new.safetensors").read_bytes() == before
    run("patch", *backbone, "-o", "new.safetensors", "--seed", 5, "--force")
    assert (tmp_path / "new.safetensors").read_bytes() != before


def test_info_says_what_a_patch_is(run: Run, patch: Path, checkpoint: Path) -> None:
    shown = run("patch", "--info", patch).stdout
    parts = ("linear gate, distinct scope", "3 blocks", "16 x 16", str(checkpoint), "8 px", "linear, 1000", "3 steps")
    assert [part for part in parts if part not in shown] == []
    record = parse(run("patch", "--info", patch, "--json"))
    assert record["training"]["data"] == "images"


def test_info_needs_no_torch(patch: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from dmp_cli.cli import app\n"
        "result = CliRunner().invoke(app, ['patch', '--info', sys.argv[1]])\n"
        "assert result.exit_code == 0, result.stderr\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(patch)], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_counting_a_patch_imports_no_compiler() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from dmp_cli.cli import app\n"
        "result = CliRunner().invoke(app, ['patch', '--backbone', 'dit-s2'])\n"
        "assert result.exit_code == 0, result.stderr\n"
        "assert 'torch' in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr


def test_bad_input(run: Run, backbone: list[str], checkpoint: Path, tmp_path: Path) -> None:
    cases = [
        ([], "no backbone given"),
        (["--backbone", "dit-b2", "-o", "x"], "no weights found for dit-b2"),
        (["--backbone", "dit-zz"], "does not exist"),
        (["--backbone", str(checkpoint)], "--num-classes"),
        (["--backbone", str(checkpoint), "--num-classes", "4"], "--num-heads"),
        (["--backbone", str(checkpoint), "--num-classes", "9", "--num-heads", "2"], "cannot hold 9 classes"),
        (["--backbone", "dit-s2", "--checkpoint", str(checkpoint), "--num-classes", "4", "--num-heads", "2"], "is no"),
        ([*backbone, "--gate", "none", "--scope", "uniform"], "reads nothing"),
        ([*backbone, "--gate", "constant", "--selection", "hard"], "reads nothing"),
        ([*backbone, "--top-k", "3"], "is for --selection hard"),
        ([*backbone, "--num-prompts", "3"], "is for --position prepend"),
        ([*backbone, "--selection", "hard", "--top-k", "17"], "has 16 prompts"),
        ([*backbone, "--selection", "hard", "--gate-scale", "2"], "factor on soft weights"),
        ([*backbone, "--gate-scale", "0"], "--gate-scale 0"),
        ([*backbone, "--depth", "4"], "has 3 blocks"),
        (["--info", "missing.safetensors"], "cannot read"),
        (["--info", str(checkpoint)], "not a readable patch"),
    ]
    for options, message in cases:
        result = run("patch", *options, code=1)
        assert message in result.stderr, (options, result.stderr)
        assert "Traceback" not in result.stderr
    assert files_in(tmp_path) == {"tiny.pt"}


def test_usage_errors_exit_2(run: Run) -> None:
    run("patch", "--no-such-option", code=2)
    run("no-such-command", code=2)
    run("patch", "--depth", "many", code=2)
    run("patch", "--gate", "maybe", code=2)


def test_dry_run_writes_nothing(run: Run, backbone: list[str], tmp_path: Path) -> None:
    plan = parse(run("patch", *backbone, "-o", "new.safetensors", "--depth", 2, "--dry-run", "--json"))
    assert plan["patch"] == PatchConfig(depth=2).model_dump()
    assert files_in(tmp_path) == {"tiny.pt"}


SIZES = ["--num-classes", "4", "--num-heads", "2"]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A training checkpoint of the paper's authors."""
    dit = tiny_dit(seed=7)
    return write_authors_checkpoint(tmp_path / "theirs.pt", {**dit.state_dict(), **authors_patch(dit)})


def test_a_patch_of_the_authors_is_imported(run: Run, theirs: Path, tmp_path: Path) -> None:
    """With --backbone, with --checkpoint, or with neither: the same file; and it works without further options."""
    result = parse(run("patch", "--from", theirs, *SIZES, "-o", "a.safetensors", "--json"))
    assert (result["output"], result["backbone"]) == ("a.safetensors", str(theirs))
    assert result["patch_parameters"] == 3 * 16 * 16 + 17 * 16 + 16
    run("patch", "--from", theirs, "--backbone", theirs, *SIZES, "-o", "b.safetensors")
    run("patch", "--from", theirs, "--checkpoint", theirs, *SIZES, "-o", "c.safetensors")
    assert len({(tmp_path / f"{name}.safetensors").read_bytes() for name in "abc"}) == 1
    backbone = load_backbone(str(theirs), num_classes=4, num_heads=2)
    call = call_of(backbone)
    with torch.no_grad():
        bare = backbone(*call)
        assert not torch.allclose(attach(backbone, load_patch(tmp_path / "a.safetensors"))(*call), bare, atol=0.1)
    run("sample", "--patch", "a.safetensors", "-n", 2, "--steps", 2, "-o", "samples", "-q")
    assert "000001.png" in files_in(tmp_path / "samples")


def test_info_of_an_imported_patch(run: Run, theirs: Path) -> None:
    run("patch", "--from", theirs, *SIZES, "-o", "a.safetensors", "-q")
    shown = run("patch", "--info", "a.safetensors").stdout
    parts = ("reads the conditioning", "dmp, imported from theirs.pt; w_noise present, not used", str(theirs))
    assert [part for part in parts if part not in shown] == []
    assert parse(run("patch", "--info", "a.safetensors", "--json"))["training"]["imported_from"] == "theirs.pt"


def test_imports_that_are_refused(
    run: Run, theirs: Path, backbone: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    half = authors_patch(tiny_dit())
    del half["gate.bias"]
    write_authors_checkpoint(tmp_path / "half.pt", {**tiny_dit().state_dict(), **half})
    write = ["-o", "new.safetensors"]
    cases = [
        (["--from", theirs, *SIZES], "no place for it"),
        (["--from", theirs, *SIZES, "--gate", "none", "--depth", "2", *write], "leave out --gate, --depth"),
        (["--from", theirs, *backbone, *write], "trained together with its prompts"),
        (["--from", checkpoint, *SIZES, *write], "holds no prompts"),
        (["--from", "half.pt", *SIZES, *write], "no gate.bias"),
        (["--from", "missing.pt", *SIZES, *write], "does not exist"),
        (["--from", theirs, *SIZES, "-o", "tiny.pt"], "exists already"),
    ]
    for options, message in cases:
        result = run("patch", *options, code=1)
        assert message in " ".join(result.stderr.split()), (options, result.stderr)
        assert "Traceback" not in result.stderr
    assert files_in(tmp_path) == {"tiny.pt", "theirs.pt", "half.pt"}


def test_a_dry_import_of_nothing_ends_as_the_import_would(run: Run, tmp_path: Path) -> None:
    refused = run("patch", "--from", "missing.pt", "-o", "new.safetensors", "--dry-run", "--json", code=1)
    assert "missing.pt does not exist" in refused.stderr
    plan = parse(refused)
    assert plan == {"from": "missing.pt", "backbone": "missing.pt", "output": "new.safetensors"}
    assert files_in(tmp_path) == set()


def test_a_config_file_knows_from(run: Run, tmp_path: Path) -> None:
    (tmp_path / "options.toml").write_text('from = "nowhere.pt"\noutput = "new.safetensors"\n')
    assert "nowhere.pt" in run("patch", "--config", "options.toml", code=1).stderr


def test_memory_is_counted_without_weights(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sizes.json").write_text(json.dumps(tiny_dit(depth=1).sizes))
    result = parse(run("patch", "--backbone", "sizes.json", "--memory", "--batches", "2", "--json"))
    rows = {row["precision"]: row for row in result["rows"]}
    whole = rows["fp32"]
    assert whole["frozen_weights"] == result["weights"] * 4
    assert whole["images"] == 2
    assert whole["frozen_weights"] < whole["training_recomputed"] < whole["training"]
    kept = [rows[name]["frozen_weights"] for name in ("fp32", "bf16", "int8", "nf4")]
    assert kept == sorted(kept, reverse=True)
    for stage in ("frozen_weights", "training", "sampling"):
        assert rows["offloaded"][stage] < rows["bf16"][stage]
        assert rows["int8"][stage] < rows["bf16"][stage]
    assert rows["offloaded"]["in_main_memory"] > rows["bf16"]["in_main_memory"] > 0
    plain = parse(run("patch", "--backbone", "sizes.json", "--json"))
    assert [result[key] for key in ("patch_parameters", "per_cent")] == [
        plain[key] for key in ("patch_parameters", "per_cent")
    ]
    assert files_in(tmp_path) == {"sizes.json"}


@pytest.mark.parametrize(
    ("options", "told"),
    [(["-o", "x.safetensors"], "leave out --output"), (["--batches", "0"], "--batches 0: give numbers of images")],
)
def test_what_memory_does_not_go_with(options: list[str], told: str, run: Run) -> None:
    assert told in run("patch", "--backbone", "dit-s2", "--memory", *options, code=1).stderr
