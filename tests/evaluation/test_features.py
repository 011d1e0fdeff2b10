"""Feature networks: what each reads, and what is refused. The Inception is a random stand-in of the same interface."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dmp_cli.demo.digits import load_digits
from dmp_cli.errors import MetricError
from dmp_cli.evaluation import inception
from dmp_cli.evaluation.digit_classifier import CLASSIFIER_FILE, load_classifier
from dmp_cli.evaluation.features import load_extractor

torch.set_num_threads(1)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 32, stride=64)
        self.linear = nn.Linear(4 * 5 * 5, 2048)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.relu(self.convolution(x)).flatten(1))


class StandIn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()
        self.output = nn.Linear(2048, 7)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        return self.layers((x - 128) / 128)


class Narrow(nn.Module):
    def __init__(self, shape: tuple[int, ...] = (3,)) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)).reshape(x.shape[0], *self.shape)


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / inception.INCEPTION_NAME
    torch.jit.script(StandIn().eval()).save(str(path))
    return path


@pytest.fixture
def trusted(standin: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in, its digest in the place of the real one's."""
    monkeypatch.setattr(inception, "INCEPTION_DIGEST", hashlib.sha256(standin.read_bytes()).hexdigest())
    monkeypatch.delenv("DMP_INCEPTION", raising=False)
    return standin


def _pictures(*sizes: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in sizes]


def _resized(image: np.ndarray) -> np.ndarray:
    """Clean resize by hand: each channel as floats, bicubic with antialiasing, clipped, never rounded."""
    channels = [Image.fromarray(image[:, :, c].astype(np.float32)) for c in range(3)]
    return np.stack([np.asarray(c.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255) for c in channels])


# --- inception -------------------------------------------------------------------------------------------------------


def test_inception_reads_clean_resized_images_of_any_size(trusted: Path) -> None:
    extractor = load_extractor("inception", inception_weights=trusted)
    images = _pictures((8, 8), (40, 20), (310, 299))
    found = extractor(images)
    assert (extractor.name, extractor.width, extractor.digest) == ("inception", 2048, inception.INCEPTION_DIGEST)
    assert (found.shape, found.dtype) == ((3, 2048), np.float32)
    batch = torch.from_numpy(np.stack([_resized(image) for image in images]))
    with torch.inference_mode():
        expected = torch.jit.load(str(trusted)).layers((batch - 128) / 128).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_inception_classifies_by_its_last_layer_without_the_bias(trusted: Path) -> None:
    classify = load_extractor("inception", inception_weights=trusted).classify
    assert classify is not None
    found = np.random.default_rng(0).normal(size=(3, 2048)).astype(np.float32)
    weight = torch.jit.load(str(trusted)).output.weight.detach().numpy()
    np.testing.assert_allclose(classify(found), found @ weight.T, rtol=1e-4, atol=1e-5)


def test_inception_weights_may_have_any_name_and_come_from_the_environment(
    trusted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = tmp_path / "network.bin"
    renamed.write_bytes(trusted.read_bytes())
    by_path, image = load_extractor("inception", inception_weights=renamed), _pictures((8, 8))
    monkeypatch.setenv("DMP_INCEPTION", str(trusted))
    np.testing.assert_array_equal(by_path(image), load_extractor("inception")(image))


def test_inception_weights_come_from_the_user_cache_last(
    trusted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    with pytest.raises(MetricError, match="user cache"):
        inception.find_inception()
    (tmp_path / "dmp").mkdir()
    cached = tmp_path / "dmp" / inception.INCEPTION_NAME
    cached.write_bytes(trusted.read_bytes())
    assert inception.find_inception() == cached
    monkeypatch.setenv("DMP_INCEPTION", str(tmp_path / "missing.pt"))
    with pytest.raises(MetricError, match=r"missing\.pt \(\$DMP_INCEPTION\)"):  # named, so the cache does not stand in
        inception.find_inception()


def test_missing_inception_weights_say_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(MetricError) as raised:
        load_extractor("inception", inception_weights=tmp_path / "inception.pt")
    assert str(tmp_path / "inception.pt") in raised.value.message
    for fact in ("95,607,719", inception.INCEPTION_DIGEST, inception.INCEPTION_NAME, "--inception-weights"):
        assert fact in str(raised.value.hint)


def test_weights_of_another_digest_are_refused_before_they_are_opened(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(torch.jit, "load", refuse)
    with pytest.raises(MetricError, match=r"of 95,607,719 bytes"):
        load_extractor("inception", inception_weights=standin)
    with open(tmp_path / "whole.pt", "wb") as file:
        file.truncate(inception.INCEPTION_BYTES)
    with pytest.raises(MetricError, match="SHA-256 "):
        load_extractor("inception", inception_weights=tmp_path / "whole.pt")


def test_truncated_inception_weights(trusted: Path, tmp_path: Path) -> None:
    (tmp_path / inception.INCEPTION_NAME).write_bytes(trusted.read_bytes()[:100_004])
    with pytest.raises(MetricError, match="damaged or another network: it has 100,004 of 95,607,719 bytes"):
        load_extractor("inception", inception_weights=tmp_path / inception.INCEPTION_NAME)


# --- pixels and digits -----------------------------------------------------------------------------------------------


def test_pixels_are_the_values_between_0_and_1_in_reading_order() -> None:
    image = np.array([[[0, 51, 102], [153, 204, 255]]], np.uint8)  # (1, 2, 3)
    extractor = load_extractor("pixels")
    np.testing.assert_allclose(extractor([image]), [[0, 0.2, 0.4, 0.6, 0.8, 1]], rtol=1e-6)
    assert (extractor.width, extractor.digest) == (None, "pixels")


def test_pixels_of_large_images_or_of_two_sizes_are_refused() -> None:
    extractor = load_extractor("pixels")
    assert extractor(_pictures((36, 36))).shape == (1, 3888)
    with pytest.raises(MetricError, match="4107 features") as raised:
        extractor(_pictures((37, 37)))
    assert "inception" in str(raised.value.hint)
    with pytest.raises(MetricError, match="one size"):
        extractor(_pictures((4, 4), (4, 5)))


def test_digits_are_the_classifier_s_features_of_the_grey_values() -> None:
    digits = load_digits()[0][:5]
    extractor = load_extractor("digits")
    found = extractor([np.repeat(digit[:, :, None], 3, axis=2) for digit in digits])
    with torch.inference_mode():
        expected = load_classifier()(torch.from_numpy(digits).float()[:, None]).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert extractor.width == 64
    assert extractor.digest == hashlib.sha256(CLASSIFIER_FILE.read_bytes()).hexdigest()


def test_digits_of_another_size_are_refused() -> None:
    with pytest.raises(MetricError, match="8, 8"):
        load_extractor("digits")(_pictures((16, 16)))


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_torchscript_file_is_called_with_resized_images(tmp_path: Path) -> None:
    torch.jit.script(Narrow()).save(str(tmp_path / "narrow.pt"))
    extractor = load_extractor(str(tmp_path / "narrow.pt"))
    images = _pictures((8, 8), (20, 30))
    expected = [_resized(image).mean((1, 2)) for image in images]
    np.testing.assert_allclose(extractor(images), expected, rtol=1e-5)
    assert (extractor.name, extractor.width) == ("narrow.pt", 3)
    assert extractor.digest == hashlib.sha256((tmp_path / "narrow.pt").read_bytes()).hexdigest()


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="neither inception, clip, dinov2, pixels, digits nor"):
        load_extractor(str(tmp_path / "clip"))


def test_a_network_that_takes_or_gives_something_else_is_refused(tmp_path: Path) -> None:
    torch.jit.script(Narrow((3, 1))).save(str(tmp_path / "images.pt"))
    with pytest.raises(MetricError, match=r"gives \(1, 3, 1\)"):
        load_extractor(str(tmp_path / "images.pt"))
    torch.jit.script(nn.Linear(5, 2)).save(str(tmp_path / "rows.pt"))
    with pytest.raises(MetricError, match="does not take images"):
        load_extractor(str(tmp_path / "rows.pt"))


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    class Divides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1 / x.mean((2, 3))

    torch.jit.trace(Divides(), torch.ones(1, 3, 299, 299)).save(str(tmp_path / "divides.pt"))
    with pytest.raises(MetricError, match="not finite"):
        load_extractor(str(tmp_path / "divides.pt"))([np.zeros((4, 4, 3), np.uint8)])
