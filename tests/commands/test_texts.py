"""``dmp train`` and ``sample`` with a text store: no encoder beside the backbone, and the same numbers as with one."""

from __future__ import annotations

import json
import os
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dmp_cli import load_patch
from dmp_cli.backbones.text import TextEncoder
from dmp_cli.backbones.text_pipeline import PipelineEncoders
from tests.backbones.flow_pipelines import write_sd3_pipeline
from tests.backbones.pipelines import (
    tiny_pixart,
    tiny_unet,
    write_captioned,
    write_pipeline,
    write_xl_pipeline,
)
from tests.backbones.text_encoders import write_projected_clip, write_t5

from .conftest import Run, files_in

HOW = ("--batch-size", 2, "--lr", 0.01, "--sample-every", 0)
DRAW = ("--prompt", "a red fox", "-n", 2, "--steps", 2, "--sampler", "ddim")


@pytest.fixture(params=["xl", "sd3"])
def train(request: pytest.FixtureRequest, tmp_path: Path) -> list[object]:
    write_captioned(tmp_path / "images", count=6, size=64)
    if request.param == "xl":
        write_xl_pipeline(tmp_path / "pipe")
    else:
        write_sd3_pipeline(tmp_path / "pipe")
    return ["train", "--backbone", "pipe", "--data", "images", *HOW]


@pytest.fixture
def quick(tmp_path: Path) -> list[object]:
    """The same with a PixArt, which is smaller, and whose states are masked."""
    write_captioned(tmp_path / "images", count=6, size=16)
    write_pipeline(tmp_path / "pixart", tiny_pixart(), text="t5")
    return ["train", "--backbone", "pixart", "--data", "images", *HOW, "-q"]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens in a command: captions encoded, the backbone's weights read, steps; and encoders in memory then."""
    from dmp_cli.backbones import registry
    from dmp_cli.sampling import forward
    from dmp_cli.training import held_out, loop

    found: list[str] = []
    alive: list[weakref.ref[Any]] = []

    def note(what: str) -> None:
        found.append(what + "!" * any(one() is not None for one in alive))

    def watch(kind: Any) -> None:
        encode = kind.encode

        def encoding(self: Any, captions: Any) -> Any:
            alive.extend(weakref.ref(model) for model in getattr(self, "models", {"": self.model}).values())
            found.append("encode")
            return encode(self, captions)

        monkeypatch.setattr(kind, "encode", encoding)

    for kind in (TextEncoder, PipelineEncoders):
        watch(kind)
    read = registry.find_weights
    monkeypatch.setattr(registry, "find_weights", lambda *given, **more: note("weights") or read(*given, **more))
    advance = loop.TrainingLoop.advance
    monkeypatch.setattr(loop.TrainingLoop, "advance", lambda *given, **more: note("step") or advance(*given, **more))
    losses = held_out.HeldOut.losses
    monkeypatch.setattr(held_out.HeldOut, "losses", lambda *given, **more: note("loss") or losses(*given, **more))
    predict = forward.predict
    monkeypatch.setattr(forward, "predict", lambda *given, **more: note("step") or predict(*given, **more))
    return found


def stores() -> list[Path]:
    return sorted(Path(os.environ["DMP_HOME"], "texts").glob("*"))


def same_numbers(one: str, other: str) -> bool:
    first, second = (load_file(f"{name}/patch.safetensors") for name in (one, other))
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_no_encoder_is_in_memory_beside_the_backbone(run: Run, train: list[object], events: list[str]) -> None:
    said = run(*train, "--steps", 2, "-o", "run").stderr.replace("\n", " ")
    # the empty caption first, for the size of a row; then it and three others
    assert events == [*["encode"] * 5, "weights", "step", "step"]  # none with a !: the encoders were gone
    (store,) = stores()
    assert store.name.startswith("pipe-")
    assert "encoding 4 captions into the text store" in said
    events.clear()
    said = run(*train, "--steps", 2, "-o", "again").stderr.replace("\n", " ")
    assert events == ["weights", "step", "step"]
    assert "bf16: all 4 captions are there" in said
    assert same_numbers("run", "again")
    record = load_patch(Path("run/patch.safetensors")).record
    assert record is not None
    assert record.text is not None
    events.clear()
    run(*train, "--steps", 2, "--no-text-store", "-o", "without", "-q")
    without = load_patch(Path("without/patch.safetensors")).record
    assert without is not None
    assert without.text == record.text
    assert events[0] == "weights"
    assert "step!" in events  # the encoders are there all the time
    for name, value in load_file("without/patch.safetensors").items():
        torch.testing.assert_close(load_file("run/patch.safetensors")[name], value, rtol=0, atol=0.02)


def test_a_store_in_full_precision_changes_no_bit(run: Run, quick: list[object]) -> None:
    run(*quick, "--steps", 3, "--no-text-store", "-o", "live")
    assert stores() == []
    run(*quick, "--steps", 3, "--text-dtype", "fp32", "-o", "stored")
    assert same_numbers("live", "stored")
    kept = sum(path.stat().st_size for path in stores()[0].glob("*.safetensors"))
    assert kept < 4 * 120 * 32 * 4 / 5  # of four captions, each of a few tokens out of 120: the padding is left out
    run(*quick, "--steps", 3, "--text-store-dir", "kept", "-o", "halved")
    assert len(stores()) == 1
    assert json.loads(Path("kept/manifest.json").read_text())["dtype"] == "bf16"
    assert not same_numbers("live", "halved")


@pytest.mark.slow
def test_encoders_that_are_known_are_not_read(run: Run, quick: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    from dmp_cli.backbones import text

    read: list[Path] = []
    load = text.load_part
    monkeypatch.setattr(text, "load_part", lambda folder, *told: read.append(folder) or load(folder, *told))
    run(*quick, "--steps", 2, "-o", "one")
    assert read == [Path.cwd() / "pixart"]
    run(*quick, "--steps", 2, "-o", "two")
    assert len(read) == 1
    one, two = (load_patch(Path(name, "patch.safetensors")).record for name in ("one", "two"))
    assert one is not None
    assert two is not None
    assert one.text == two.text
    assert same_numbers("one", "two")
    file = Path("images/metadata.jsonl")
    file.write_text(file.read_text().replace("two cats", "a caption longer than any"))
    run(*quick, "--steps", 2, "-o", "three")  # for the new caption
    assert len(read) == 2
    write_t5(Path("pixart"), seed=5)  # other encoders, in the same place and of the same sizes
    run(*quick, "--steps", 2, "-o", "four")
    assert len(read) == 3
    assert len(stores()) == 2
    for path in Path(os.environ["DMP_HOME"], "text-encoders").iterdir():
        path.write_text("{}")  # what cannot be read is found out again
    run(*quick, "--steps", 2, "-o", "five")
    assert len(read) == 4
    assert same_numbers("four", "five")


def test_a_run_goes_on_as_it_began(run: Run, quick: list[object]) -> None:
    run(*quick, "--steps", 4, "-o", "straight")
    run(*quick, "--steps", 2, "-o", "parts")
    refused = run("train", "--resume", "-o", "parts", "--steps", 4, "--no-text-store", code=1).stderr
    assert "other settings: text-store bf16, now none" in " ".join(refused.split())
    run("train", "--resume", "-o", "parts", "--steps", 4, "-q")
    assert same_numbers("straight", "parts")
    shutil.rmtree(stores()[0])
    run(*quick, "--steps", 2, "--no-text-store", "-o", "old")
    settings = json.loads(Path("old/config.json").read_text())  # as an earlier version wrote it
    del settings["text_store"], settings["options"]["text_store"]
    Path("old/config.json").write_text(json.dumps(settings))
    run("train", "--resume", "-o", "old", "--steps", 4, "-q")
    run(*quick, "--steps", 4, "--no-text-store", "-o", "whole")
    assert same_numbers("old", "whole")
    assert stores() == []


def test_small_encoders_get_a_store_where_it_is_asked_for(run: Run, tmp_path: Path) -> None:
    write_captioned(tmp_path / "images", count=6, size=32)
    pipeline = write_pipeline(tmp_path / "pipeline", tiny_unet())
    train = ["train", "--backbone", pipeline, "--data", "images", *HOW, "--steps", 2, "-q"]
    run(*train, "-o", "live")
    assert stores() == []
    run(*train, "--text-store", "--text-dtype", "fp32", "-o", "stored")
    assert len(stores()) == 1
    assert same_numbers("live", "stored")


@pytest.mark.slow
def test_held_out_captions_are_in_the_store_too(run: Run, quick: list[object], events: list[str]) -> None:
    write_captioned(Path("others"), count=3, size=16, seed=1)
    lines = [json.loads(line) for line in Path("others/metadata.jsonl").read_text().splitlines()]
    told = [{**line, "text": f"a new caption {number}"} for number, line in enumerate(lines)]
    Path("others/metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told))
    held = ["--val-data", "others", "--val-draws", 20, "--sample-every", 2]
    run(*quick, "--steps", 2, *held, "-o", "run")
    assert events[:9] == [*["encode"] * 8, "weights"]
    assert "encode" not in events[8:]


def test_damage_is_named_and_mended_by_the_next_run(run: Run, quick: list[object]) -> None:
    run(*quick, "--steps", 2, "-o", "whole")
    (file,) = stores()[0].glob("*.safetensors")
    original = file.read_bytes()
    middle = len(original) // 2  # in the states
    file.write_bytes(original[:middle] + bytes([original[middle] ^ 1]) + original[middle + 1 :])
    said = run(*quick, "--steps", 6, "-o", "out", code=1).stderr
    assert f"{file.name} is damaged: caption" in said.replace("\n", "")
    assert "Traceback" not in said
    run(*quick, "--steps", 2, "-o", "again")
    assert file.read_bytes() == original
    assert same_numbers("whole", "again")


@pytest.mark.slow
def test_no_home_and_disks_that_cannot_be_written(
    run: Run, quick: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ["--text-store-dir", "kept"]
    run(*quick, "--steps", 1, *kept, "-o", "first")
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
        run(*quick, "--steps", 1, *kept, "--no-latent-store", "-o", "second")  # nothing is missing
        (file,) = Path("kept").glob("*.safetensors")
        file.unlink()
        said = run(*quick, "--steps", 1, *kept, "-o", "third", code=1).stderr
        assert "the text store in kept cannot be written: this user may not" in said.replace("\n", " ")
    monkeypatch.delenv("DMP_HOME")

    def none(*names: str, **options: object) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_data_dir", none)
    said = " ".join(run(*quick, "--steps", 1, "--no-latent-store", "-o", "fourth", code=1).stderr.split())
    assert "this user has no home folder" in said
    assert "--text-store-dir" in said
    run(*quick, "--steps", 1, "--no-latent-store", *kept, "-o", "fifth")


def test_bad_input_is_said_before_weights_are_read(run: Run, backbone: list[str], images: Path, tmp_path: Path) -> None:
    pipeline = tmp_path / "xl"
    write_xl_pipeline(pipeline)
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    write_captioned(tmp_path / "photos", count=6, size=64)
    train = ["train", "--backbone", "xl", "--data", "photos", *HOW, "--steps", 1, "-q"]
    run(*train, "--text-store-dir", "kept", "-o", "one")
    weights.write_bytes(b"never read")

    def refused(message: str, *words: object) -> None:
        said = " ".join(run(*words, code=1).stderr.split())
        assert message in said
        assert "Traceback" not in said

    refused("photos holds other files", *train, "--text-store-dir", "photos", "-o", "two")
    shutil.rmtree(pipeline / "text_encoder_2")
    shutil.rmtree(pipeline / "tokenizer_2")
    write_projected_clip(pipeline, seed=7)
    refused(
        "kept is a text store of something else: other text encoders", *train, "--text-store-dir", "kept", "-o", "two"
    )
    shutil.rmtree(pipeline / "text_encoder_2")
    refused("cannot read xl/text_encoder_2".replace("xl", str(pipeline)), *train, "-o", "two")
    weights.write_bytes(kept)
    digits = ["train", *backbone, "--data", images, "--steps", 1, "-o", "three"]
    refused("--text-store is for a backbone that reads text", *digits, "--text-store")
    assert not Path("two").exists()
    assert not Path("three").exists()


def test_samples_need_no_encoder_beside_the_backbone(run: Run, quick: list[object], events: list[str]) -> None:
    draw = ["sample", "--backbone", "pixart", *DRAW, "-q"]
    run(*draw, "-o", "one")
    assert events == ["encode", "encode", "weights", "step", "step"]
    assert stores() == []
    events.clear()
    run(*draw, "--no-text-store", "-o", "live")
    assert events[0] == "weights"
    assert events[-1] == "step!"
    events.clear()
    run(*draw, "--text-store", "--text-dtype", "fp32", "-o", "stored")
    assert events == [*["encode"] * 3, "weights", "step", "step"]
    assert len(stores()) == 1
    pictures = [Path(name, "000001.png").read_bytes() for name in ("one", "live", "stored")]
    assert pictures[0] == pictures[1] == pictures[2]
    events.clear()
    run(*draw, "-n", 3, "-o", "stored")  # goes on by the same store
    assert "encode" not in events
    assert json.loads(Path("stored/samples.json").read_text())["made"]["text_store"] == "fp32"
    refused = run(*draw, "-n", 4, "--no-text-store", "-o", "stored", code=1).stderr
    assert "text-store" in refused
    events.clear()
    run(*draw, "-n", 3, "-o", "one")
    assert events == ["weights", "encode", "encode", "step", "step"]  # of what is left to draw, before it is drawn


@pytest.mark.slow
def test_a_patch_is_drawn_from_without_encoders_beside_it(run: Run, quick: list[object], events: list[str]) -> None:
    run(*quick, "--steps", 1, "-o", "run")
    events.clear()
    Path("prompts.txt").write_text("a red fox --n a bird\ntwo cats\n")
    how = ["--prompts", "prompts.txt", "--steps", 2, "--sampler", "ddim", "-q"]
    run("sample", "--patch", "run/patch.safetensors", *how, "-o", "drawn")
    assert events == [*["encode"] * 4, "weights", "step", "step"]
    assert {"000000.png", "000001.png"} <= files_in(Path("drawn"))
    events.clear()
    run("sample", "--patch", "run/patch.safetensors", *how, "--text-store", "-o", "stored")
    assert events == [*["encode"] * 2, "weights", "step", "step"]  # a row's size, and a bird: the others are there


@pytest.mark.slow
def test_a_held_out_loss_needs_no_encoder_once_it_begins(run: Run, quick: list[object], events: list[str]) -> None:
    run(*quick, "--steps", 1, "--no-text-store", "-o", "run")
    events.clear()
    loss = ["eval", "--loss", "--patch", "run/patch.safetensors", "--val-data", "images", "--val-draws", 20]
    run(*loss, "-o", "loss", "-q")
    assert events[1:] == [*["encode"] * 4, "loss", "loss"]  # of the bare network and of the patched one
