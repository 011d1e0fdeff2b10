"""A patch in one file: exact round trips, a header without torch, and every damaged bit refused."""

import json
import random
import shutil
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from dmp_cli.backbones import load_backbone
from dmp_cli.config import CodecRecord, PatchConfig
from dmp_cli.errors import DMPError, PatchError
from dmp_cli.patching.attachment import attach, create_patch
from dmp_cli.patching.file import load_patch, read_record, save_patch
from tests.builders import call_of, tiny_dit, write_meta_checkpoint

VARIANTS = [{}, {"scope": "uniform"}, {"gate": "constant"}, {"gate": "none"}, {"depth": 1}, {"depth": 0}]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    path = write_meta_checkpoint(tmp_path_factory.mktemp("backbone") / "a.pt", tiny_dit())
    return load_backbone(str(path), num_classes=4, num_heads=2)


def make_patch(backbone, **variant):
    """A patch with non-zero values and a record of its backbone and training."""
    patch = create_patch(backbone, PatchConfig(**variant), codec=CodecRecord(), image_size=8, seed=3)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in patch.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source))
    training = {"method": "dmp", "lr": 1e-4, "data": 'größer "ffhq"', "steps_done": 7, "average": None}
    patch.record = patch.record.model_copy(update={"training": training})
    return patch


@pytest.fixture
def patch_file(backbone, tmp_path):
    save_patch(tmp_path / "a.safetensors", make_patch(backbone))
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_round_trip_is_exact(backbone, tmp_path, variant):
    patch = make_patch(backbone, **variant)
    save_patch(tmp_path / "a.safetensors", patch)
    read = load_patch(tmp_path / "a.safetensors")
    assert read.record == patch.record
    assert read.config == patch.config
    assert read.hidden_shapes == patch.hidden_shapes
    assert read.state_dict().keys() == patch.state_dict().keys()
    assert all(torch.equal(value, patch.state_dict()[name]) for name, value in read.state_dict().items())
    x, timesteps, condition = call_of(backbone)
    outputs = []
    for one in (patch, read):
        patched = attach(backbone, one)
        outputs.append(patched(x, timesteps, condition))
        patched.detach()
    assert torch.equal(*outputs)
    save_patch(tmp_path / "b.safetensors", read)
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_a_patch_file_needs_no_other_file(backbone, patch_file, tmp_path):
    place = tmp_path / "elsewhere" / "renamed.bin"
    place.parent.mkdir()
    shutil.copy(patch_file, place)
    patch_file.unlink()
    assert load_patch(place).record == read_record(place) == make_patch(backbone).record


def test_a_trained_patch_read_from_a_file_can_train_on(patch_file):
    assert all(parameter.requires_grad for parameter in load_patch(patch_file).parameters())


def test_the_size_is_that_of_the_tensors(backbone, patch_file):
    tensors = sum(4 * parameter.numel() for parameter in make_patch(backbone).parameters())
    assert tensors < patch_file.stat().st_size < 1.1 * tensors + 8192


def test_the_header_is_what_other_tools_read(patch_file):
    data = patch_file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    for key in ("sai_model_spec", "architecture", "implementation", "title"):
        assert metadata[f"modelspec.{key}"]
    assert metadata["modelspec.architecture"] == "dit/dmp"
    assert metadata["format"] == "pt"
    assert json.loads(metadata["dmp.header"])["training"]["data"] == 'größer "ffhq"'
    assert set(load_file(patch_file)) == {"prompts.0", "prompts.1", "prompts.2", "gate.weight", "gate.bias"}


def test_reading_the_header_imports_no_torch(patch_file):
    code = (
        "import sys; from dmp_cli.patching.file import read_record; record = read_record(sys.argv[1]);"
        "print(record.backbone.family, sorted({'torch', 'numpy', 'safetensors', 'diffusers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(patch_file)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "dit []\n"


def refused(path):
    for read in (load_patch, read_record):
        with pytest.raises(PatchError) as caught:
            read(path)
        assert str(path) in caught.value.message
    return caught.value


def test_a_cut_file(patch_file):
    data = patch_file.read_bytes()
    places = [*range(10), *random.Random(0).sample(range(10, len(data) - 1), 39), len(data) - 1]
    for place in places:
        patch_file.write_bytes(data[:place])
        refused(patch_file)
    patch_file.write_bytes(data + b"\0")
    refused(patch_file)
    patch_file.write_bytes(data)
    load_patch(patch_file)


def test_every_flipped_bit(patch_file):
    data, numbers = patch_file.read_bytes(), random.Random(0)
    places = [numbers.randrange(1500) for _ in range(100)] + [numbers.randrange(1500, len(data)) for _ in range(100)]
    seal = data.index(b'"dmp.sha256":"')
    for place in [*places, *range(seal, seal + 14 + 64 + 1)]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << numbers.randrange(8)
        patch_file.write_bytes(damaged)
        refused(patch_file)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, b"<html></html>" * 9, struct.pack("<Q", 2) + b"[]" * 5])
def test_another_kind_of_file(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    refused(path)


def test_a_safetensors_file_without_a_patch_is_refused(tmp_path):
    for metadata in (None, {"dmp.header": "{}"}):
        save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata)
        assert "not a patch" in refused(tmp_path / "a.safetensors").message


def test_files_that_cannot_be_opened(tmp_path):
    assert "No such file" in refused(tmp_path / "missing.safetensors").message
    assert "is a folder, not a file" in refused(tmp_path).message


def test_another_format_version(backbone, tmp_path):
    patch = make_patch(backbone)
    patch.record = patch.record.model_copy(update={"format_version": 2})
    save_patch(tmp_path / "a.safetensors", patch)
    error = refused(tmp_path / "a.safetensors")
    assert "format version 2; this dmp reads version 1" in error.message
    assert error.hint == "Update dmp."


def test_an_invalid_header_with_a_right_seal_is_refused(backbone, tmp_path):
    """The seal and the version are right, but the header has an invalid value."""
    patch = make_patch(backbone)
    record = patch.record
    patch.record = record.model_copy(update={"gate_width": "large"})
    with pytest.warns(UserWarning, match="serializ"):
        save_patch(tmp_path / "a.safetensors", patch)
    assert "gate_width" in refused(tmp_path / "a.safetensors").message
    patch.record = record.model_copy(update={"image_size": "large"})
    save_patch(tmp_path / "a.safetensors", patch)
    assert "image_size" in refused(tmp_path / "a.safetensors").message


def test_tensors_that_the_header_does_not_describe(backbone, tmp_path):
    patch = make_patch(backbone)
    patch.record = patch.record.model_copy(update={"hidden_shapes": [[4, 16]]})
    save_patch(tmp_path / "a.safetensors", patch)
    with pytest.raises(PatchError, match="not those that its header describes"):
        load_patch(tmp_path / "a.safetensors")


def test_a_patch_without_a_record_is_not_written(tmp_path):
    patch = create_patch(tiny_dit(), PatchConfig(), codec=CodecRecord(), image_size=8)
    with pytest.raises(PatchError, match="does not know its backbone"):
        save_patch(tmp_path / "a.safetensors", patch)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written(backbone, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DMPError, match="cannot write"):
        save_patch(tmp_path / "file" / "a.safetensors", make_patch(backbone))
