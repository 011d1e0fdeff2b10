"""The embedded digits, their PNGs, and the classifier behind the demo's score."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dmp_cli.demo import make_data
from dmp_cli.demo.digits import DIGITS_FILE, grey_from_ink, ink_from_grey, load_digits, write_digits
from dmp_cli.errors import CheckpointError, ConfigError, DataError, DMPError, MetricError
from dmp_cli.evaluation.digit_classifier import CLASSIFIER_FILE, DigitClassifier, load_classifier

# How many of each digit the source says its test set has.
CLASS_COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_digits_are_the_ones_of_the_source():
    images, labels = load_digits()
    assert (images.shape, images.dtype) == ((1797, 8, 8), np.uint8)
    assert (labels.shape, labels.dtype) == ((1797,), np.int64)
    assert np.bincount(labels).tolist() == CLASS_COUNTS
    assert labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    # The first image's first two rows, as printed in scikit-learn's guide: 0 0 5 13 9 1 0 0 / 0 0 13 15 10 15 5 0.
    assert ink_from_grey(images[0, :2]).tolist() == [[0, 0, 5, 13, 9, 1, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0]]


def test_the_stored_file_equals_scikit_learns_copy():
    source = pytest.importorskip("sklearn.datasets").load_digits()
    images, labels = load_digits()
    assert np.array_equal(ink_from_grey(images), source.images)
    assert np.array_equal(labels, source.target)


def test_grey_is_invertible_and_uses_the_whole_range():
    ink = np.arange(17, dtype=np.uint8)
    by_hand = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]  # 255 v / 16, half up
    assert grey_from_ink(ink).tolist() == by_hand
    assert ink_from_grey(grey_from_ink(ink)).tolist() == ink.tolist()
    assert ink_from_grey(np.arange(256)).tolist() == [round(grey * 16 / 255) for grey in range(256)]


def test_pngs_hold_the_same_pixels_in_one_folder_per_class(tmp_path):
    assert write_digits(tmp_path / "digits") == 1797
    images, labels = load_digits()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["digits"]
    assert sorted(entry.name for entry in (tmp_path / "digits").iterdir()) == [str(label) for label in range(10)]
    paths = sorted((tmp_path / "digits").glob("*/*.png"), key=lambda path: path.name)
    assert [path.name for path in paths] == [f"{index:04d}.png" for index in range(1797)]
    assert [int(path.parent.name) for path in paths] == labels.tolist()
    for index in (0, 7, 1796):
        with Image.open(paths[index]) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), images[index])


def test_writing_over_a_filled_folder_is_refused(tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        write_digits(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.txt"]


def test_writing_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(image):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dmp_cli.demo.digits._png", full_disk)
    with pytest.raises(DMPError, match="no space left"):
        write_digits(tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a zip", DIGITS_FILE.read_bytes()[:20_000]])
def test_damaged_digits_are_one_clear_error(tmp_path, monkeypatch, content):
    (tmp_path / "digits.npz").write_bytes(content)
    monkeypatch.setattr("dmp_cli.demo.digits.DIGITS_FILE", tmp_path / "digits.npz")
    with pytest.raises(DataError, match="cannot read the embedded digits"):
        load_digits()


def test_classifier_knows_the_digits_it_never_saw():
    images, labels = make_data.as_tensors()
    train, held_out = make_data.split(1797)
    assert (len(train), len(held_out)) == (1347, 450)
    assert sorted([*train, *held_out]) == list(range(1797))
    classifier = load_classifier()
    # 440 of 450 as stated in the README; one image may tip over on another processor.
    correct = round(450 * make_data.accuracy(classifier, images=images[held_out], labels=labels[held_out]))
    assert abs(correct - 440) <= 1


def test_classifier_features_follow_the_formula():
    classifier = load_classifier()
    image = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    w = {name: value.double().numpy() for name, value in classifier.state_dict().items()}
    first = _relu(
        _convolve(image.double().numpy() / 127.5 - 1, weight=w["conv1.weight"], bias=w["conv1.bias"], stride=1)
    )
    second = _relu(_convolve(first, weight=w["conv2.weight"], bias=w["conv2.bias"], stride=2))
    features = _relu(second.reshape(2, -1) @ w["hidden.weight"].T + w["hidden.bias"])
    logits = features @ w["head.weight"].T + w["head.bias"]
    assert features.shape == (2, 64)
    np.testing.assert_allclose(classifier(image).numpy(), features, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(classifier.logits(image).numpy(), logits, rtol=1e-4, atol=1e-4)


def test_classifier_is_frozen_and_in_eval_mode():
    classifier = load_classifier()
    assert not classifier.training
    assert not any(parameter.requires_grad for parameter in classifier.parameters())
    assert (
        sum(parameter.numel() for parameter in classifier.parameters()) == 320 + 18_496 + 65_600 + 650
    )  # 1*32*9+32, 32*64*9+64, 1024*64+64, 64*10+10


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 1, 16, 16), (1, 8, 8), (1, 64)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(MetricError, match="reads grey images of shape"):
        load_classifier()(torch.zeros(shape))


def _stored(change):
    """The shipped weights as safetensors bytes after ``change`` to the dict of tensors."""
    from safetensors.torch import load, save

    tensors = load(CLASSIFIER_FILE.read_bytes())
    change(tensors)
    return save(tensors)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        CLASSIFIER_FILE.read_bytes()[:-1],
        _stored(lambda tensors: tensors.pop("head.bias")),
        _stored(lambda tensors: tensors.update(more=torch.zeros(1))),
        _stored(lambda tensors: tensors.update({"head.bias": torch.zeros(11)})),
    ],
    ids=["empty", "cut", "missing", "unexpected", "misfit"],
)
def test_a_classifier_that_does_not_fit_exactly_is_refused(tmp_path, content):
    path = tmp_path / "classifier.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot read the digit classifier"):
        load_classifier(path)


def test_the_digits_file_can_be_made_again_byte_for_byte(tmp_path):
    pytest.importorskip("sklearn.datasets")
    make_data.write_digits_file(tmp_path / "digits.npz")
    with np.load(tmp_path / "digits.npz") as new, np.load(DIGITS_FILE) as shipped:
        assert set(new.files) == set(shipped.files) == {"images", "labels"}
        assert all(np.array_equal(new[name], shipped[name]) for name in new.files)


def test_training_is_seeded_and_a_written_classifier_reads_back(tmp_path, monkeypatch):
    monkeypatch.setattr(make_data, "_EPOCHS", 2)
    images, labels = make_data.as_tensors()
    once, again = (make_data.train_classifier(images[:640], labels[:640]) for _ in range(2))
    make_data.write_classifier(tmp_path / "c.safetensors", classifier=once)
    read = load_classifier(tmp_path / "c.safetensors")
    for name, value in again.state_dict().items():
        assert torch.equal(read.state_dict()[name], value), name
    assert make_data.accuracy(read, images=images[:640], labels=labels[:640]) > 0.5  # 0.1 is chance
    torch.manual_seed(0)
    assert make_data.accuracy(DigitClassifier(), images=images[:640], labels=labels[:640]) < 0.3


def test_importing_the_data_imports_no_torch():
    code = "import sys, dmp_cli.demo as demo; demo.load_digits(); print(sorted({'torch', 'PIL'} & set(sys.modules)))"
    root = Path(make_data.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _relu(values):
    return np.maximum(values, 0)


def _convolve(images, *, weight, bias, stride):
    """3x3 convolution with one pixel of zeros around, by loops over the output's pixels."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    size = images.shape[2] // stride
    out = np.empty((len(images), len(weight), size, size))
    for row in range(size):
        for column in range(size):
            window = padded[:, :, stride * row : stride * row + 3, stride * column : stride * column + 3]
            out[:, :, row, column] = np.einsum("bchw,ochw->bo", window, weight) + bias
    return out
