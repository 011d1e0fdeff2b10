"""What a patch shows: three lines, and in notebooks its gates as a picture; and its files as peft keeps them."""

from __future__ import annotations

import base64
import copy
import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dmp_cli import DMPError, Patch, PatchConfig, attach, create_patch, detach, load_backbone
from dmp_cli.backbones import Backbone
from tests.builders import filled_patch, tiny_dit

Load = Callable[[], Backbone]


def picture(html: str) -> Image.Image:
    """The picture in a notebook's cell."""
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_three_lines_say_what_it_is() -> None:
    backbone = load_backbone("digits")
    patch = create_patch(backbone)
    digest = backbone.record.digest[:12] if backbone.record else ""
    assert repr(patch).splitlines() == [
        f"Patch for digits (dit, sha256 {digest}…)",
        "linear gate, 16 prompts in each of 2 blocks, 608 parameters",
        "not trained, not attached",
    ]
    assert patch.record is not None
    patch.record = patch.record.model_copy(update={"training": {"steps_done": 2000}})
    patched = attach(backbone, patch, strength=0.5)
    assert repr(patch).splitlines()[-1] == "trained for 2,000 steps, attached, strength 0.5"
    assert repr(patched).splitlines() == [
        f"PatchedBackbone: dit digits, sha256 {digest}…",
        "linear gate, 16 prompts in each of 2 blocks",
        "trained for 2,000 steps, attached, strength 0.5",
    ]
    attach(backbone, create_patch(backbone, PatchConfig(experts="lora", depth=1)), name="style")
    assert repr(patched).splitlines()[3] == "style: linear gate, 4 low-rank experts of rank 4 in each of 1 blocks"
    detach(backbone)
    assert repr(patched).splitlines()[-1] == "trained for 2,000 steps, detached"
    assert "not attached" in repr(patch)
    unknown = repr(filled_patch(tiny_dit(), gate="none", position="prepend"))
    assert unknown.startswith("Patch for a backbone without a record\nno gate, 50 prompts put in front in each of 3")


def test_copies_know_that_they_are_attached() -> None:
    backbone = load_backbone("digits")
    patched = attach(backbone, create_patch(backbone))
    for other in (copy.deepcopy(patched), pickle.loads(pickle.dumps(patched))):
        patched.detach()
        assert "attached, strength 1" in repr(other.patch)
        assert "not attached" in repr(patched.patch)
        patched = attach(backbone, patched.patch)


@pytest.mark.slow
def test_a_notebook_shows_the_gates(load: Load, tmp_path: Path) -> None:
    backbone = load()
    patch = filled_patch(backbone)
    patch.record = create_patch(backbone).record
    alone = patch._repr_html_()  # its backbone is loaded again from where it was
    assert "not attached" in alone
    patched = attach(backbone, patch)
    shown = picture(patch._repr_html_())
    assert shown.width > 400
    assert shown.tobytes() == picture(patched._repr_html_()).tobytes() == picture(alone).tobytes()
    assert len(patched._repr_html_()) < 300_000
    detach(backbone)
    for text in (patched._repr_html_(), attach(backbone, filled_patch(backbone, gate="none"))._repr_html_()):
        assert "<img" not in text
        assert text.startswith("<pre>PatchedBackbone: dit ")
    (tmp_path / "tiny.pt").unlink()
    assert "<img" not in patch._repr_html_()
    assert "<img" not in filled_patch(tiny_dit())._repr_html_()


@pytest.mark.slow
def test_several_patches_show_their_own_gates(load: Load) -> None:
    backbone = load()
    one, other = filled_patch(backbone), filled_patch(backbone, seed=1)
    attach(backbone, one)
    attach(backbone, other, name="other")
    assert picture(one._repr_html_()).tobytes() != picture(other._repr_html_()).tobytes()


def test_files_and_folders(tmp_path: Path) -> None:
    patch = create_patch(load_backbone("digits"))
    assert patch.save_pretrained(tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / "patch.safetensors"
    assert patch.save_pretrained(str(tmp_path / "p.safetensors")) == tmp_path / "p.safetensors"
    for place in (tmp_path / "new" / "folder", str(tmp_path / "p.safetensors")):
        assert repr(Patch.from_pretrained(place)) == repr(patch)
    with pytest.raises(DMPError, match=r"cannot read .*patch\.safetensors"):
        Patch.from_pretrained(tmp_path)
    with pytest.raises(DMPError, match="does not know its backbone"):
        filled_patch(tiny_dit()).save_pretrained(tmp_path / "q")
