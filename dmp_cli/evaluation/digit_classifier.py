"""A small convolutional classifier of 8x8 digits. The demo computes its score on the features of the last hidden layer.

Letters: B images, 64 features, 10 classes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, MetricError

NUM_FEATURES = 64
CLASSIFIER_FILE = Path(__file__).with_name("digit_classifier.safetensors")
_SHAPE = (1, 8, 8)


class DigitClassifier(nn.Module):
    """Maps grey images to features: float32 (B, 1, 8, 8) -> (B, 64), all >= 0.

    Pixels are in [0, 255], not in [0, 1] or [-1, 1].
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1, stride=2)
        self.hidden = nn.Linear(64 * 4 * 4, NUM_FEATURES)
        self.head = nn.Linear(NUM_FEATURES, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 64) of grey images (B, 1, 8, 8) in [0, 255]. Raises MetricError for any other shape."""
        if tuple(images.shape[1:]) != _SHAPE:
            raise MetricError(
                f"the digit classifier reads grey images of shape {_SHAPE}, not {tuple(images.shape[1:])}",
                hint="Use --features digits only for 8x8 digits; use inception or pixels for other images.",
            )
        hidden = torch.relu(self.conv1(images / 127.5 - 1))  # (B, 32, 8, 8)
        hidden = torch.relu(self.conv2(hidden))  # (B, 64, 4, 4)
        return torch.relu(self.hidden(hidden.flatten(1)))  # (B, 64)

    def logits(self, images: Tensor) -> Tensor:
        """Class scores before the softmax, (B, 10), of grey images (B, 1, 8, 8) in [0, 255]."""
        return self.head(self(images))


def load_classifier(path: Path = CLASSIFIER_FILE) -> DigitClassifier:
    """Load the classifier stored at ``path``: in eval mode, on the CPU, with frozen weights.

    Raises CheckpointError if a tensor is missing, unexpected or of another shape, or if the file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    classifier = DigitClassifier()
    try:
        classifier.load_state_dict(load(Path(path).read_bytes()), strict=True)
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot read the digit classifier", hint="Install dmp-cli again.") from error
    return classifier.eval().requires_grad_(False)
