"""Backbone files of this tool's own format: they need no option, and a bad header is refused."""

import pytest
from safetensors.torch import save_file

from dmp_cli.backbones import load_backbone
from dmp_cli.backbones.native_file import save_backbone
from dmp_cli.config import CodecRecord, ScheduleConfig
from dmp_cli.errors import CheckpointError
from tests.builders import same_weights, tiny_dit


@pytest.mark.parametrize(
    "changes", [{}, {"num_classes": 0, "null_row": False}, {"freq_shift": 1.0, "learn_sigma": False}]
)
def test_a_native_file_needs_no_option(tmp_path, changes):
    made = tiny_dit(**changes)
    made.schedule = ScheduleConfig(kind="cosine", num_timesteps=500)
    codec = CodecRecord(kind="vae", source="some/vae", digest="abc")
    save_backbone(tmp_path / "a.safetensors", made, codec=codec, training={"steps_done": 3})
    loaded = load_backbone(str(tmp_path / "a.safetensors"))
    assert same_weights(loaded, made)
    assert loaded.sizes == made.sizes
    assert loaded.schedule == made.schedule
    assert loaded.codec == codec


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"sizes": {"depth": 0}, "schedule": {}}', '{"sizes": {}, "schedule": {"kind": "new"}}']
)
def test_a_native_file_with_a_bad_header_is_refused(tmp_path, text):
    save_file(tiny_dit().state_dict(), tmp_path / "a.safetensors", {"dmp.backbone": text})
    with pytest.raises(CheckpointError, match=r"the header of .*a\.safetensors is not"):
        load_backbone(str(tmp_path / "a.safetensors"))
