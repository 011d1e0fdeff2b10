"""CLIP and DINOv2 as feature networks, on small random ones of transformers, against clean-fid's own CLIP code."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dmp_cli.config import EvalConfig
from dmp_cli.errors import MetricError
from dmp_cli.evaluation.features import load_extractor
from dmp_cli.evaluation.image_encoders import square_resize
from dmp_cli.evaluation.scoring import evaluate
from tests.builders import write_images

torch.set_num_threads(1)
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, Dinov2Config, Dinov2Model

    root = tmp_path_factory.mktemp("vision")
    torch.manual_seed(0)
    clip = CLIPVisionConfig(**SIZES, projection_dim=6, image_size=224, patch_size=32)
    CLIPVisionModelWithProjection(clip).save_pretrained(root / "clip")
    sizes = {**SIZES, "mlp_ratio": 2}
    del sizes["intermediate_size"]
    Dinov2Model(Dinov2Config(**sizes, image_size=224, patch_size=14)).save_pretrained(root / "dinov2")
    return {"clip": root / "clip", "dinov2": root / "dinov2"}


@pytest.fixture
def cleanfid_clip(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    """clean-fid's own CLIP code, its ``clip`` package replaced by one that has our small network."""
    from transformers import CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection.from_pretrained(folders["clip"]).eval()

    class Network:
        def eval(self) -> None: ...

        def encode_image(self, images: Tensor) -> Tensor:
            return model(pixel_values=images).image_embeds

    stand_in = types.ModuleType("clip")
    stand_in.load = lambda name, device: (Network(), None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "clip", stand_in)
    monkeypatch.delitem(sys.modules, "cleanfid.clip_features", raising=False)
    from cleanfid import clip_features

    return clip_features


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (300, 231), (97, 640)])
def test_pictures_are_prepared_as_clean_fid_does(size: tuple[int, int], cleanfid_clip: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    theirs = cleanfid_clip.img_preprocess_clip(image).transpose(2, 0, 1)
    assert np.array_equal(square_resize(image), theirs)


def test_clip_fid_equals_clean_fid_s_own(folders: dict[str, Path], tmp_path: Path, cleanfid_clip: Any) -> None:
    from cleanfid import fid

    a, b = (write_images(tmp_path / str(s), count=12, size=40, classes=0, seed=s) for s in (1, 2))
    options = {"num_workers": 0, "batch_size": 5, "device": torch.device("cpu"), "use_dataparallel": False}
    theirs = fid.compute_fid(
        str(a),
        str(b),
        custom_feat_extractor=cleanfid_clip.CLIP_fx("ViT-B/32", device="cpu"),
        custom_fn_resize=cleanfid_clip.img_preprocess_clip,
        verbose=False,
        **options,
    )
    found = evaluate(EvalConfig(samples=(a,), reference=b, features="clip", feature_weights=folders["clip"]))
    assert found.rows[0].scores["fid"].value == pytest.approx(theirs, rel=1e-6)
    assert theirs > 0
    assert found.features_width == 6


def test_dinov2_gives_its_class_token(folders: dict[str, Path]) -> None:
    from transformers import Dinov2Model

    extractor = load_extractor("dinov2", feature_weights=folders["dinov2"])
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = torch.from_numpy(((image / 255 - mean) / std).transpose(2, 0, 1)[None]).float()
    with torch.no_grad():
        token = Dinov2Model.from_pretrained(folders["dinov2"])(pixel_values=pixels).last_hidden_state[:, 0]
    assert np.allclose(extractor([image]), token.numpy(), atol=1e-5)
    assert extractor.width == 16


def test_folders_without_readable_weights_of_the_network_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="need weights, but none are given"):
        load_extractor("clip")
    with pytest.raises(MetricError, match=r"no \.safetensors weights"):
        load_extractor("clip", feature_weights=tmp_path)
    with pytest.raises(MetricError, match="it lacks"):
        load_extractor("dinov2", feature_weights=folders["clip"])
    cut = tmp_path / "cut"
    cut.mkdir()
    for name in ("config.json", "model.safetensors"):
        (cut / name).write_bytes((folders["clip"] / name).read_bytes())
    (cut / "model.safetensors").write_bytes((folders["clip"] / "model.safetensors").read_bytes()[:-7])
    with pytest.raises(MetricError, match="cannot be read"):
        load_extractor("clip", feature_weights=cut)
