"""``train`` of Python: the bytes of ``dmp train``, in a folder or without one; a failure leaves the backbone bare."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli import DMPError, PatchConfig, TrainConfig, detach, load_backbone, load_patch, train
from dmp_cli.backbones import Backbone
from dmp_cli.patching import owner_on
from tests.builders import TOLD, call_of, tiny_dit, write_images, write_meta_checkpoint
from tests.commands.conftest import Run

Load = Callable[[], Backbone]
SHORT = TrainConfig(steps=3, batch_size=4, lr=0.01, save_every=2)
TYPED = ("--steps", 3, "--batch-size", 4, "--lr", 0.01, "--save-every", 2, "-q")
NAMED = ("--num-classes", 4, "--num-heads", 2)


def typed(run: Run, checkpoint: Path, images: Path, *more: Any) -> bytes:
    """The bytes of the patch that the command trains."""
    run("train", "--backbone", checkpoint, *NAMED, "--data", images, *TYPED, "-o", "typed", *more)
    return Path("typed/patch.safetensors").read_bytes()


def test_it_gives_the_bytes_of_the_command(run: Run, checkpoint: Path, images: Path, load: Load) -> None:
    backbone, seen = load(), []
    patched = train(backbone, images, SHORT, output="called", on_step=lambda event: seen.append(event.step))
    expected = typed(run, checkpoint, images)
    assert Path("called/patch.safetensors").read_bytes() == expected
    settings = [json.loads(Path(name, "config.json").read_text()) for name in ("called", "typed")]
    assert settings[0].pop("options").keys() == settings[1].pop("options").keys() - {"patch"}
    assert settings[0] == settings[1]
    assert seen == [1, 2, 3]
    assert patched.backbone is backbone
    patched.patch.save_pretrained("kept")
    assert Path("kept/patch.safetensors").read_bytes() == expected


def test_without_a_folder_nothing_is_left_but_the_patch(run: Run, checkpoint: Path, images: Path, load: Load) -> None:
    before = set(Path().rglob("*"))
    patched = train(load(), images, SHORT, patch=PatchConfig(depth=2), seed=5)
    assert set(Path().rglob("*")) == before
    file = patched.patch.save_pretrained("own.safetensors")
    assert file.read_bytes() == typed(run, checkpoint, images, "--depth", 2, "--seed", 5)
    assert not patched.training


def test_a_run_goes_on_from_either_side(run: Run, checkpoint: Path, images: Path, load: Load) -> None:
    expected = typed(run, checkpoint, images)

    class Enough(Exception):
        pass

    def stop(event: Any) -> None:
        if event.step == 2:
            raise Enough

    backbone = load()
    with pytest.raises(Enough):
        train(backbone, images, SHORT, output="half", on_step=stop)
    assert owner_on(backbone) is None
    patched = train(backbone, output="half", resume=True)  # what was asked for is in the folder
    assert Path("half/patch.safetensors").read_bytes() == expected
    assert patched.patch.record is not None
    with pytest.raises(Enough):
        train(load(), images, SHORT, output="other", on_step=stop)
    run("train", "--resume", "-o", "other", "-q")
    assert Path("other/patch.safetensors").read_bytes() == expected
    detach(backbone)
    with pytest.raises(DMPError, match="holds a run that can go on") as refused:
        train(backbone, images, SHORT, output="half")
    said = "Continue it with resume=True, give another output with output=..., or replace the run with force=True"
    assert said in str(refused.value)


def test_a_failed_training_leaves_the_backbone_bare(images: Path, load: Load) -> None:
    backbone, fresh = load(), load()
    (images / "0" / "0000.png").write_bytes(b"no picture")
    with pytest.raises(DMPError, match="at most 0 may be bad"):
        train(backbone, images, steps=50, batch_size=4, latent_store=False, max_bad=0, output="broken")
    assert owner_on(backbone) is None
    with torch.no_grad():
        assert torch.equal(backbone(*call_of(backbone)), fresh(*call_of(fresh)))


def test_what_cannot_be_trained_is_said_in_the_words_of_python(images: Path, load: Load) -> None:
    backbone = load()
    for arguments, said in (
        ({"backbone": torch.nn.Linear(1, 1)}, "Load the backbone with load_backbone(name)"),
        ({"backbone": tiny_dit()}, "made in code"),
        ({"data": None}, "no data given"),
        ({"resume": True}, "there is no folder to go on with"),
        ({"stepz": 3}, "train() has no option stepz"),
        ({"method": "scratch"}, "method='scratch' trains no backbone that is there"),
        ({"patch": PatchConfig(depth=9)}, "depth=9: this backbone has 3 blocks"),
    ):
        with pytest.raises(DMPError) as refused:
            train(**{"backbone": backbone, "data": images, "config": SHORT, **arguments})
        assert said in str(refused.value)
        assert "--" not in str(refused.value)
    train(backbone, images, SHORT)
    with pytest.raises(DMPError, match="has a patch attached already"):
        train(backbone, images, SHORT)


def test_remarks_are_warnings(tmp_path: Path, load: Load) -> None:
    images = write_images(tmp_path / "some")
    (images / "0" / "broken.png").write_bytes(b"no picture")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(load(), images, SHORT, steps=8, latent_store=False, max_bad=1)
    assert [str(one.message) for one in caught if "broken.png" in str(one.message)]


def test_another_method_leaves_what_it_learnt_in_the_backbone(images: Path, load: Load, tmp_path: Path) -> None:
    backbone, fresh = load(), load()
    trained = train(backbone, images, SHORT, method="bitfit", lr=0.1)
    assert trained is backbone
    with torch.no_grad():
        assert not torch.equal(backbone(*call_of(backbone)), fresh(*call_of(fresh)))
    other = write_meta_checkpoint(tmp_path / "other.pt", tiny_dit(seed=1))
    train(load(), images, SHORT, output="run")
    with pytest.raises(DMPError, match="holds a run with other settings"):
        train(load_backbone(str(other), **TOLD), images, SHORT, output="run", resume=True)
    assert load_patch(Path("run/patch.safetensors")).record is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patch", "config"),
    [
        (PatchConfig(experts="both", expert_targets=("qkv", "proj"), prompt_grid=(2, 2)), {"val_part": (1, 2)}),
        (PatchConfig(prompt_grid=None, gate="constant"), {"flip": False, "class_dropout": 0.5}),
        (None, {"method": "lora", "lora_targets": ("qkv", "proj")}),
    ],
)
def test_its_options_can_be_typed(patch: PatchConfig | None, config: dict[str, Any], load: Load, run: Run) -> None:
    images = write_images(Path("many").absolute(), count=24)
    how = {"steps": 2, "batch_size": 4, "val_split": 0.2, "val_draws": 20}
    train(load(), images, TrainConfig(**how, **config), patch=patch, output="called")
    run("train", "--config", "called/run.toml", "-o", "typed", "-q")
    files = [path.relative_to("called") for path in Path("called").rglob("*.safetensors") if "step" not in str(path)]
    assert files
    for file in files:
        assert ("called" / file).read_bytes() == ("typed" / file).read_bytes()
    settings = [json.loads(Path(name, "config.json").read_text()) for name in ("called", "typed")]
    assert [one.pop("options").get("prompt_grid") for one in settings].count(None) in (0, 2)
    assert settings[0] == settings[1]
