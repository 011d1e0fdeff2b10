"""Makes ``digits.npz`` from the copy of the digits in scikit-learn, and trains the classifier.

Maintainers run it as ``python -m dmp_cli.demo.make_data``. No other module needs scikit-learn.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..evaluation import CLASSIFIER_FILE, DigitClassifier
from ..runtime import randomness
from ..storage import write_bytes
from .digits import DIGITS_FILE, load_digits

NUM_HELD_OUT = 450
_SEED = 0
_EPOCHS = 30
_BATCH = 64
_LR = 1e-3


def main() -> None:
    """Write both files, and print the accuracy on the training images and on the held-out images."""
    parser = argparse.ArgumentParser(description="Make the embedded digits and their classifier.")
    parser.add_argument("--digits", type=Path, default=DIGITS_FILE)
    parser.add_argument("--classifier", type=Path, default=CLASSIFIER_FILE)
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that sums have a fixed order and the same machine gives the same bytes
    write_digits_file(options.digits)
    images, labels = as_tensors()
    train, held_out = split(len(labels))
    classifier = train_classifier(images[train], labels[train])
    write_classifier(options.classifier, classifier=classifier)
    for name, rows in (("training", train), ("held out", held_out)):
        print(f"{name}: accuracy {accuracy(classifier, images=images[rows], labels=labels[rows]):.4f} of {len(rows)}")


def write_digits_file(path: Path) -> None:
    """Write ink 0..16 as uint8 (1797, 8, 8) and labels as uint8 (1797,), compressed."""
    from sklearn.datasets import load_digits as load_source

    source = load_source()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=source.images.astype(np.uint8), labels=source.target.astype(np.uint8))
    write_bytes(path, buffer.getvalue())


def write_classifier(path: Path, *, classifier: DigitClassifier) -> None:
    """Write the weights of the classifier as one safetensors file."""
    from safetensors.torch import save

    write_bytes(path, save(classifier.state_dict(), metadata={"format": "pt"}))


def as_tensors() -> tuple[Tensor, Tensor]:
    """All digits as tensors: grey images, float32 (1797, 1, 8, 8) in [0, 255], and labels, int64 (1797,)."""
    images, labels = load_digits()
    return torch.from_numpy(images).float()[:, None], torch.from_numpy(labels)


def split(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training images, and of the 450 held-out images. The split never changes."""
    order = randomness.permutation("digits-split", count, seed=_SEED)
    return np.sort(order[NUM_HELD_OUT:]), np.sort(order[:NUM_HELD_OUT])


def train_classifier(images: Tensor, labels: Tensor) -> DigitClassifier:
    """Train with AdamW on the cross-entropy: batch 64, 30 epochs, cosine decay to 0, fixed seed."""
    torch.manual_seed(_SEED)
    classifier = DigitClassifier()
    steps = _EPOCHS * (len(labels) // _BATCH)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=_LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(_EPOCHS):
        order = torch.from_numpy(randomness.permutation("digits-batches", len(labels), seed=_SEED, step=epoch))
        for rows in order[: len(order) // _BATCH * _BATCH].view(-1, _BATCH):
            loss = functional.cross_entropy(classifier.logits(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return classifier.eval().requires_grad_(False)


def accuracy(classifier: DigitClassifier, *, images: Tensor, labels: Tensor) -> float:
    """The share of images whose largest logit is that of their label."""
    return float((classifier.logits(images).argmax(1) == labels).float().mean())


if __name__ == "__main__":
    main()
