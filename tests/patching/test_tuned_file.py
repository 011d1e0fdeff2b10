"""A file of tuned weights: the same bytes for the same content, read strictly, and refused if anything differs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from dmp_cli.config import CodecRecord, TunedMethod
from dmp_cli.errors import CheckpointError, ConfigError, PatchError
from dmp_cli.patching.attachment import attach
from dmp_cli.patching.file import load_patch, save_patch
from dmp_cli.patching.tuned import create_tuned
from dmp_cli.patching.tuned_file import is_tuned, load_tuned, read_tuned, save_tuned
from tests.builders import call_of, tiny_dit, zero_patch
from tests.chaos.kinds.tuned import sealed
from tests.chaos.tensor_files import TensorFile, lay_out, parse
from tests.patching.adapters import known
from tests.patching.test_tuned import fill

ABOUT: dict[str, Any] = {"codec": CodecRecord(), "image_size": 8, "training": {"method": "difffit", "steps_done": 3}}


def saved(path: Path, method: TunedMethod = "difffit", **changes: Any) -> torch.Tensor:
    """Write filled weights; what the backbone gives with them."""
    backbone = known(**changes)
    tuned = create_tuned(backbone, method)
    fill(tuned)
    save_tuned(path, tuned, **ABOUT)
    return backbone(*call_of(backbone)).detach()


@pytest.mark.parametrize("method", ["bitfit", "difffit"])
def test_a_round_trip(tmp_path: Path, method: TunedMethod) -> None:
    file, again = tmp_path / "tuned.safetensors", known()
    expected = saved(file, method)
    record, count = read_tuned(file)
    assert (record.method, record.backbone, record.image_size) == (method, again.record, 8)
    assert record.training == ABOUT["training"]
    tuned = load_tuned(file, again)
    assert count == sum(p.numel() for p in tuned.parameters.values()) == (728 if method == "bitfit" else 904)
    assert torch.equal(again(*call_of(again)), expected)
    assert not any(p.requires_grad for p in [*again.parameters(), *tuned.parameters.values()])
    assert load_file(file).keys() == tuned.parameters.keys()  # what was learnt, and nothing else
    saved(tmp_path / "twin.safetensors", method)
    assert (tmp_path / "twin.safetensors").read_bytes() == file.read_bytes()


def test_a_written_file_that_is_overwritten_changes_no_loaded_weight(tmp_path: Path) -> None:
    file, backbone = tmp_path / "tuned.safetensors", known()
    expected = saved(file)
    load_tuned(file, backbone)
    file.write_bytes(bytes(file.stat().st_size))
    assert torch.equal(backbone(*call_of(backbone)), expected)


def test_another_backbone_is_refused_untouched(tmp_path: Path) -> None:
    file = tmp_path / "tuned.safetensors"
    saved(file)
    for other in (known(seed=5), known(depth=2)):
        before = other(*call_of(other))
        with pytest.raises(CheckpointError, match=r"tuned\.safetensors was trained on another backbone: here\.pt"):
            load_tuned(file, other)
        assert torch.equal(other(*call_of(other)), before)
    backbone = known()
    load_tuned(file, backbone)
    with pytest.raises(CheckpointError, match="another backbone"):  # not twice
        load_tuned(file, backbone)
    with pytest.raises(PatchError, match="other weights"):  # and no patch of the untouched backbone on top
        attach(backbone, known_patch())
    code = create_tuned(tiny_dit(), "bitfit")
    with pytest.raises(ConfigError, match="do not know their backbone"):
        save_tuned(tmp_path / "new.safetensors", code, **ABOUT)


def known_patch() -> Any:
    backbone = known()
    return zero_patch(backbone)


def test_every_changed_bit_is_refused(tmp_path: Path) -> None:
    file, backbone = tmp_path / "tuned.safetensors", known()
    stamp = backbone.stamp()
    saved(file)
    data = file.read_bytes()
    for at in range(0, len(data), 97):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(CheckpointError):
            load_tuned(file, backbone)
    file.write_bytes(data[:-1])
    with pytest.raises(CheckpointError, match="cut or grew"):
        load_tuned(file, backbone)
    file.unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        load_tuned(file, backbone)
    assert backbone.stamp() == stamp


GAMMA = "blocks.1.mlp.fc2.gamma"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: lay_out(file, {GAMMA: None}), f"{GAMMA} is missing"),
        (lambda file: lay_out(file, {"more": ("F32", [1], bytes(4))}), "more is not described"),
        (lambda file: lay_out(file, {GAMMA: ("F32", [8], bytes(32))}), r"shape \(8,\), not \(16,\)"),
        (lambda file: lay_out(file, {GAMMA: ("F32", [1 << 20], bytes(4 << 20))}), r"shape \(1048576,\), not \(16,\)"),
        (lambda file: lay_out(file, {GAMMA: ("I32", [16], bytes(64))}), "holds I32, not floating-point numbers"),
        (lambda file: lay_out(file, {GAMMA: ("F32", [16], b"\xff" * 64)}), "not all finite: NaN"),
        (lambda file: lay_out(file, {GAMMA: ("F64", [16], b"\x7e" * 128)}), "not all finite: infinity"),
        (lambda file: TensorFile({**file.metadata, "dmp.tuned": "[]"}, file.entries, file.body), "format version None"),
        (lambda file: TensorFile({**file.metadata, "dmp.tuned": "{"}, file.entries, file.body), "not valid JSON"),
    ],
)
def test_what_is_forged_and_sealed_anew_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    file, backbone = tmp_path / "tuned.safetensors", known()
    stamp = backbone.stamp()
    saved(file)
    file.write_bytes(sealed(change(parse(file.read_bytes()))).data())
    with pytest.raises(CheckpointError, match=message):
        load_tuned(file, backbone)
    assert backbone.stamp() == stamp


def test_patches_and_tuned_weights_are_told_apart(tmp_path: Path) -> None:
    file, patch = tmp_path / "tuned.safetensors", tmp_path / "patch.safetensors"
    saved(file)
    save_patch(patch, known_patch())
    assert is_tuned(file)
    assert not is_tuned(patch)
    assert not is_tuned(tmp_path)
    with pytest.raises(PatchError, match="holds tuned weights of a backbone, and is not a patch"):
        load_patch(file)
    with pytest.raises(CheckpointError, match="holds no tuned weights"):
        load_tuned(patch, known())


def test_a_record_is_read_without_torch(tmp_path: Path) -> None:
    saved(tmp_path / "tuned.safetensors")
    code = "import sys; from dmp_cli.patching import read_tuned; from pathlib import Path\n"
    code += f"read_tuned(Path({str(tmp_path / 'tuned.safetensors')!r})); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_metadata_is_that_of_a_safetensors_file(tmp_path: Path) -> None:
    saved(tmp_path / "tuned.safetensors")
    with safe_open(str(tmp_path / "tuned.safetensors"), "pt") as file:
        assert file.metadata().keys() == {"format", "dmp.tuned", "dmp.sha256"}
