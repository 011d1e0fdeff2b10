"""What training checkpoints say of themselves: SiT and REPA are known, and a DiT's options need not be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dmp_cli.backbones import load_backbone, reload_backbone
from dmp_cli.config import PatchConfig
from dmp_cli.errors import CheckpointError, ConfigError
from dmp_cli.patching.attachment import create_patch
from tests.builders import PIXELS, TOLD, same_weights, tiny_dit, write_weights
from tests.zoo.checkpoints import DIT_ARGS, FLOWS, LIGHTNING_DIT_CONFIG, REPA_ARGS, SIT_ARGS, training_checkpoint


def write(path: Path, args: dict[str, Any], **changes: Any) -> str:
    torch.save(training_checkpoint(tiny_dit(**changes).state_dict(), args), path)
    return str(path)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (LIGHTNING_DIT_CONFIG, "model LightningDiT-XL/1, path_type Linear, prediction velocity"),
        ({"model": "SiT-B/2", "path_type": "cubic"}, "model SiT-B/2, path_type cubic"),
        ({**DIT_ARGS, "path_type": "GVP"}, "path_type GVP"),
        ({**DIT_ARGS, "prediction": "velocity"}, "prediction velocity"),
        ({**DIT_ARGS, "flow_matching": True}, "flow_matching"),
    ],
    ids=["LightningDiT", "unknown path", "path alone", "prediction alone", "flag"],
)
@pytest.mark.parametrize("key", ["args", "config", "hyper_parameters"])
def test_flow_matching_of_an_unknown_kind_is_refused_by_its_own_words(
    tmp_path: Path, args: dict[str, Any], words: str, key: str
) -> None:
    content = training_checkpoint(tiny_dit().state_dict(), args)
    content[key] = content.pop("args")
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=f"a.pt was trained by flow matching, .*: its options say {words}\n"):
        load_backbone(str(tmp_path / "a.pt"), **TOLD)


@pytest.mark.parametrize(
    ("args", "flow", "kind", "prediction"),
    [
        (SIT_ARGS, "sit", "linear", "velocity"),
        ({**SIT_ARGS, "path_type": "GVP", "prediction": "noise"}, "sit", "cosine", "epsilon"),
        ({**SIT_ARGS, "path_type": "VP", "prediction": "score"}, "sit", "vp", "score"),
        (REPA_ARGS, "repa", "linear", "velocity"),
        ({**REPA_ARGS, "path_type": "cosine"}, "repa", "cosine", "velocity"),
    ],
)
def test_sit_and_repa_are_known_by_their_options(
    tmp_path: Path, args: dict[str, Any], flow: str, kind: str, prediction: str
) -> None:
    path = write(tmp_path / "a.pt", {**args, "num_classes": 4})
    loaded = load_backbone(path, num_heads=2)
    found = loaded.schedule
    assert (found.flow, found.kind, found.prediction) == (flow, kind, prediction)
    assert loaded.remarks == ()
    other = "repa" if flow == "sit" else "sit"
    for wrong in ({"objective": "epsilon"}, {"objective": other}, {"schedule": "vp" if kind != "vp" else "linear"}):
        with pytest.raises(ConfigError, match=r"contradicts .*a\.pt, which says"):
            load_backbone(path, num_heads=2, **wrong)
    record = create_patch(loaded, PatchConfig(), codec=PIXELS, image_size=8).record
    assert record is not None
    assert reload_backbone(record).schedule == found
    path = write(tmp_path / "b.pt", {**args, "num_classes": 4, "weighting": "lognormal"})
    words = "its training had weighting lognormal; here all levels are drawn alike, and no loss is weighted, "
    words += "unless --levels and --loss-weight say so"
    assert load_backbone(path, num_heads=2).remarks == (words,)


def test_a_flow_that_only_an_option_names(tmp_path: Path) -> None:
    bare = write_weights(tmp_path / "bare.pt", tiny_dit().state_dict())
    loaded = load_backbone(bare, **TOLD, objective="sit")
    assert (loaded.schedule.flow, loaded.schedule.kind, loaded.schedule.prediction) == ("sit", "linear", "velocity")
    assert loaded.remarks == ("no file says which interpolant the flow has: assumed linear (--schedule)",)
    assert load_backbone(bare, **TOLD, objective="repa", schedule="cosine").schedule.kind == "cosine"
    with pytest.raises(ConfigError, match="--schedule scaled_linear: the flow of sit has linear, cosine or vp"):
        load_backbone(bare, **TOLD, objective="sit", schedule="scaled_linear")
    with pytest.raises(ConfigError, match="--schedule vp: a DDPM has"):
        load_backbone(bare, **TOLD, schedule="vp")
    said = write(tmp_path / "said.pt", {**DIT_ARGS, "path_type": "GVP"})  # a flow, in an open direction of time
    assert load_backbone(said, num_heads=2, num_classes=4, objective="sit").schedule.kind == "cosine"


@pytest.mark.parametrize("layout", FLOWS)
def test_layouts_of_flows(tmp_path: Path, layout: str) -> None:
    flow = "sit" if "SiT" in layout else "repa"
    made = tiny_dit(learn_sigma=flow == "sit")
    torch.save(FLOWS[layout](made.state_dict()), tmp_path / "a.pt")
    loaded = load_backbone(str(tmp_path / "a.pt"), **TOLD)
    assert loaded.schedule.flow == flow  # no other training than REPA's has projectors
    assert same_weights(loaded, made)
    said = "left out 4 tensors projectors.*, which REPA's training needs and its predictions do not"
    assert (said in loaded.remarks) == (flow == "repa")


def test_sizes_come_from_the_options_of_the_training(tmp_path: Path) -> None:
    made = tiny_dit(num_classes=10, hidden_size=384, num_heads=6, depth=1)  # 11 rows, which could be 11 classes
    told = {**DIT_ARGS, "model": "DiT-S/2", "num_classes": 10}
    torch.save(training_checkpoint(made.state_dict(), told), tmp_path / "a.pt")
    loaded = load_backbone(str(tmp_path / "a.pt"))
    assert (loaded.num_classes, loaded.has_null, loaded.sizes) == (10, True, made.sizes)
    assert same_weights(loaded, made)
    assert loaded.remarks == ()
    assert load_backbone(str(tmp_path / "a.pt"), num_classes=11).num_classes == 11  # an option wins


def test_options_that_do_not_fit_the_tensors_say_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", {**DIT_ARGS, "num_classes": 1000})  # the script's default, and 5 rows
    with pytest.raises(CheckpointError, match="its class table has 5 rows"):
        load_backbone(path, num_heads=2)


def test_what_the_backbone_predicts(tmp_path: Path) -> None:
    bare = write_weights(tmp_path / "bare.pt", tiny_dit().state_dict())
    assert load_backbone(bare, **TOLD).schedule.prediction == "epsilon"
    loaded = load_backbone(bare, **TOLD, objective="v_prediction")
    assert loaded.schedule.prediction == "v_prediction"
    record = create_patch(loaded, PatchConfig(), codec=PIXELS, image_size=8).record
    assert record is not None
    assert reload_backbone(record).schedule == loaded.schedule
    said = write(tmp_path / "said.pt", {"prediction_type": "v_prediction"})
    assert load_backbone(said, **TOLD).schedule.prediction == "v_prediction"
    with pytest.raises(ConfigError, match=r"--objective epsilon contradicts .*, which says v_prediction"):
        load_backbone(said, **TOLD, objective="epsilon")
    with pytest.raises(ConfigError, match="--objective 'flow'"):
        load_backbone(bare, **TOLD, objective="flow")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "assumed a linear noise schedule (--schedule) and a prediction of the noise (--objective)"),
        ({"schedule": "cosine"}, "assumed a prediction of the noise (--objective)"),
        ({"objective": "epsilon"}, "assumed a linear noise schedule (--schedule)"),
        ({"objective": "epsilon", "schedule": "linear"}, None),
    ],
)
def test_what_was_assumed_is_said(tmp_path: Path, options: dict[str, Any], words: str | None) -> None:
    bare = write_weights(tmp_path / "bare.pt", tiny_dit().state_dict())
    remarks = load_backbone(bare, **TOLD, **options).remarks
    assert remarks == ((f"no file says how the backbone was trained: {words}",) if words else ())


@pytest.mark.parametrize(("size", "channels", "side"), [(8, 3, 8), (64, 4, 8)])
def test_positions_that_the_image_size_tells(tmp_path: Path, size: int, channels: int, side: int) -> None:
    made = tiny_dit(in_channels=channels)
    tensors = {name: tensor for name, tensor in made.state_dict().items() if name != "pos_embed"}
    path = write_weights(tmp_path / "a.pt", tensors)
    with pytest.raises(CheckpointError, match="positions pos_embed") as caught:
        load_backbone(path, **TOLD)
    assert "--image-size" in str(caught.value.hint)
    loaded = load_backbone(path, **TOLD, image_size=size)
    assert loaded.sample_shape == (channels, side, side)
    assert same_weights(loaded, made)
    record = create_patch(loaded, PatchConfig(), codec=PIXELS, image_size=8).record
    assert record is not None
    assert same_weights(reload_backbone(record), made)
    told = {"ema": tensors, "args": {"image_size": size}}
    torch.save(told, tmp_path / "told.pt")
    assert same_weights(load_backbone(str(tmp_path / "told.pt"), **TOLD), made)
