"""Folders that diffusers writes: a config that cannot be read is refused."""

import pytest
from safetensors.torch import save_file

from dmp_cli.errors import CheckpointError
from dmp_cli.storage.weights import read_weights

from .weight_files import WEIGHTS


@pytest.mark.parametrize("text", ["", "{", "[]", "\x80"])
def test_a_diffusers_folder_with_a_bad_config(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    save_file(WEIGHTS, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=r"config.json is not"):
        read_weights(tmp_path)
