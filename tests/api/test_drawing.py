"""``sample`` of Python: the bytes of ``dmp sample``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dmp_cli import DMPError, PatchConfig, Prompt, attach, create_patch, load_backbone, load_patch, sample
from dmp_cli.backbones import Backbone
from dmp_cli.config import CodecRecord
from tests.backbones.flow_pipelines import write_sd3_pipeline
from tests.builders import filled_patch
from tests.commands.conftest import Run

Load = Callable[[], Backbone]


def drawn(folder: str) -> np.ndarray:
    """The pixels that a command has drawn."""
    return np.stack([np.asarray(Image.open(path)) for path in sorted(Path(folder).glob("0*.png"))])


def test_it_gives_the_bytes_of_the_command(run: Run, checkpoint: Path, load: Load, tmp_path: Path) -> None:
    backbone = load()
    patched = attach(backbone, filled_patch(backbone))
    patched.patch.save_pretrained("p.safetensors")
    command = ("sample", "--patch", "p.safetensors", "-n", 5, "--seed", 3, "--steps", 4, "-q")
    run(*command, "--sampler", "ddim", "--classes", "1,2", "--guidance", 2, "-o", "patched")
    images = sample(patched, n=5, seed=3, classes=[1, 2], sampler="ddim", steps=4, guidance=2.0)
    assert all(isinstance(image, Image.Image) for image in images)
    expected = drawn("patched")
    assert np.array_equal(np.stack([np.asarray(image) for image in images]), expected)
    run(*command, "--no-patch", "-o", "bare")
    with patched.disabled():
        off = sample(patched, n=5, seed=3, steps=4, output="array")
    assert np.array_equal(off, drawn("bare"))
    assert np.array_equal(sample(load(), n=5, seed=3, steps=4, output="array"), off)
    assert not np.array_equal(off[:1], expected[:1])


@pytest.mark.slow
def test_prompts_and_latents_of_a_pipeline(run: Run, tmp_path: Path) -> None:
    write_sd3_pipeline(tmp_path / "sd3")
    backbone = load_backbone("sd3")
    patched = attach(backbone, filled_patch(backbone))
    patched.patch.record = create_patch(backbone, patched.patch.config, image_size=64).record
    patched.patch.save_pretrained("p.safetensors")
    Path("prompts.txt").write_text("a red fox\na blue bird --d 9 --l 2\n")
    command = ("sample", "--patch", "p.safetensors", "--prompts", "prompts.txt", "--steps", 2, "--keep-latents", "-q")
    run(*command, "-o", "typed")
    how: dict[str, Any] = {"prompts": ["a red fox", Prompt(text="a blue bird", seed=9, guidance=2)], "steps": 2}
    assert np.array_equal(sample(patched, output="array", **how), drawn("typed"))
    kept = np.stack([np.load(path) for path in sorted(Path("typed").glob("*.latent.npy"))])
    assert np.array_equal(sample(patched, output="latent", **how), kept)
    record = patched.patch.record
    assert record is not None
    assert record.text is not None
    other = record.text.model_copy(update={"digest": "0" * 64})
    patched.patch.record = record.model_copy(update={"text": other})
    with pytest.warns(UserWarning, match="text encoder"):
        sample(patched, n=1, **how)


def test_the_digits_are_grey(load: Load) -> None:
    backbone = load_backbone("digits")
    backbone.train()
    images = sample(backbone, n=2, classes=3, steps=2)
    assert [(image.mode, image.size) for image in images] == [("L", (8, 8))] * 2
    assert backbone.training


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"output": "latent"}, "this backbone denoises pixels"),
        ({"output": "png"}, "give 'pil', 'array' or 'latent'"),
        ({"prompts": "a fox"}, "prompts are for backbones that read text"),
        ({"classes": 7}, "classes=7: this backbone knows classes 0..3"),
        ({"sampler": "flow-euler"}, "sampler='flow-euler'"),
        ({"stepz": 7}, "sample() has no option stepz"),
        ({"strength": 0.5}, "sample() does not take strength\nSet it on the patched backbone"),
        ({"quantize": "int8"}, "sample() does not take quantize"),
        ({"steps": 0}, "steps=0: Input should be greater than or equal to 1"),
        ({"image_size": 9}, "image_size=9"),
        ({"against": "base"}, "this is the backbone itself"),
        ({"against": "p.safetensors"}, "give a patch, another backbone, or"),
        ({"against_scale": 2.0}, "against_scale and against_interval go with against"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_the_words_of_python(options: dict[str, Any], said: str, load: Load) -> None:
    with pytest.raises(DMPError) as refused:
        sample(load(), **options)
    assert said in str(refused.value)
    assert "--" not in str(refused.value)


def test_away_from_another_version_as_the_command_does(run: Run, checkpoint: Path, load: Load) -> None:
    backbone = load()
    patched = attach(backbone, filled_patch(backbone))
    patched.patch.save_pretrained("p.safetensors")
    how: dict[str, Any] = {"n": 3, "steps": 3, "sampler": "ddim", "seed": 2, "output": "array"}
    command = ("sample", "-n", 3, "--steps", 3, "--sampler", "ddim", "--seed", 2, "-q", "--against-scale", 2)
    run(*command, "--patch", "p.safetensors", "--against", "base", "-o", "base")
    assert np.array_equal(sample(patched, against="base", against_scale=2.0, **how), drawn("base"))
    run(
        *command,
        "--backbone",
        checkpoint,
        "--num-classes",
        4,
        "--num-heads",
        2,
        "--against",
        "p.safetensors",
        "-o",
        "bare",
    )
    bare, patch = load(), load_patch("p.safetensors")
    assert np.array_equal(sample(bare, against=patch, against_scale=2.0, **how), drawn("bare"))
    assert np.array_equal(sample(bare, **how), sample(load(), **how))  # the other version is off again
    other = load()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.2)
    away = sample(bare, against=other, **how)
    assert np.array_equal(away, sample(bare, against=other, against_scale=1.0, **how))
    assert not np.array_equal(away, sample(bare, **how))
    assert np.array_equal(sample(backbone, against="base", against_scale=2.0, **how), drawn("base"))  # patched as it is
    assert patch.record is not None
    patch.record = patch.record.model_copy(update={"codec": CodecRecord(kind="vae", digest="0" * 64)})
    with pytest.raises(DMPError, match="the space of another codec"):
        sample(bare, against=patch, **how)
    with pytest.raises(DMPError, match="it is the backbone that is drawn from"):
        sample(bare, against=bare, **how)
    with pytest.raises(DMPError, match=r"its (family|sample shape|num classes)"):
        sample(bare, against=load_backbone("digits"), **how)


def test_a_module_of_another_kind_is_refused() -> None:
    with pytest.raises(DMPError, match="a Linear is no backbone of dmp_cli"):
        sample(torch.nn.Linear(1, 1))


def test_a_patch_by_default_is_of_the_backbone_s_codec_and_size(tmp_path: Path) -> None:
    backbone = load_backbone("digits")
    patch = create_patch(backbone)
    assert patch.record is not None
    assert (patch.record.codec.kind, patch.record.image_size, patch.config.gate) == ("pixel", 8, "linear")
    write_sd3_pipeline(tmp_path / "sd3")
    record = create_patch(load_backbone(str(tmp_path / "sd3")), PatchConfig(depth=1)).record
    assert record is not None
    assert record.codec.kind == "vae"
    assert record.codec.digest
    file = patch.save_pretrained(tmp_path / "folder")
    assert load_patch(file).record == type(patch).from_pretrained(tmp_path / "folder").record == patch.record
