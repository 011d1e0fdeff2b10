"""A small classifier of 16x16 pictures, whose pooled features score samples: a TorchScript file for ``dmp eval``."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from .cifar_pictures import SIDE, read_pictures

WIDTH = 128  # features
_BATCH, _LR, _SEED = 128, 2e-3, 0


class Classifier(nn.Module):
    """Four 3x3 convolutions, the mean over places, and ten logits. Reads pictures (B, 3, 16, 16) in 0..255."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(*_convolution(3, 32), *_convolution(32, 64, stride=2)),  # (B, 64, 8, 8)
            *(*_convolution(64, 64), *_convolution(64, WIDTH, stride=2)),  # (B, 128, 4, 4)
        )
        self.head = nn.Linear(WIDTH, 10)

    def features(self, images: Tensor) -> Tensor:
        """Features (B, 128)."""
        return self.body(images / 127.5 - 1).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 10)."""
        return self.head(self.features(images))


class Features(nn.Module):
    """The features of pictures as ``dmp eval`` gives them to a network: enlarged to 299, float32 in 0..255.

    Bicubic enlargement leaves a pixel's colour at its centre, and that is where it is read again.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 299, 299) to (B, 128)."""
        small = functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        return self.classifier.features(small)


def make_features(pictures: Path, path: Path, *, epochs: int) -> float:
    """Train the classifier on ``pictures/train``, write its features to ``path``; its accuracy on ``pictures/test``."""
    classifier = train(*read_pictures(pictures / "train"), epochs=epochs)
    network = torch.jit.trace(Features(classifier), torch.zeros(2, 3, 299, 299))
    partial = path.with_suffix(".part")
    torch.jit.save(network, partial)
    partial.replace(path)
    return accuracy(classifier, *read_pictures(pictures / "test"))


def train(images: Tensor, labels: Tensor, *, epochs: int) -> Classifier:
    """Train with AdamW and one cycle of the learning rate; pictures are mirrored and moved by a pixel at random."""
    torch.manual_seed(_SEED)
    classifier = Classifier().to(memory_format=torch.channels_last)
    steps = epochs * (len(labels) // _BATCH)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=_LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(labels))
        for rows in order[: len(order) // _BATCH * _BATCH].view(-1, _BATCH):
            logits = classifier(_move(images[rows].float()).contiguous(memory_format=torch.channels_last))
            optimizer.zero_grad()
            functional.cross_entropy(logits, labels[rows], label_smoothing=0.1).backward()
            optimizer.step()
            schedule.step()
    return classifier.eval().requires_grad_(False)


def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """The share of pictures whose largest logit is that of their class."""
    found = torch.cat([classifier(part.float()).argmax(1) for part in images.split(1000)])
    return float((found == labels).float().mean())


def _convolution(inner: int, outer: int, *, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]


def _move(images: Tensor) -> Tensor:
    """Mirror each picture of a batch with probability 1/2, and move the batch by up to a pixel each way."""
    mirrored = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
    down, right = torch.randint(0, 3, (2,)).tolist()
    return functional.pad(mirrored, (1, 1, 1, 1), mode="replicate")[..., down : down + SIDE, right : right + SIDE]
