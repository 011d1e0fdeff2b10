"""The networks of the study on CIFAR-10: ``python -m benchmarks.studies.sizes FILE.json --size cpu|gpu``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_SHARED = {"in_channels": 3, "patch_size": 2, "num_classes": 10, "null_row": True, "learn_sigma": False}
SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"input_size": 16, "hidden_size": 64, "depth": 4, "num_heads": 4, "mlp_size": 256, **_SHARED},
    "gpu": {"input_size": 32, "hidden_size": 192, "depth": 6, "num_heads": 3, "mlp_size": 768, **_SHARED},
}
RANKS = {"cpu": 4, "gpu": 16}  # of LoRA, and of all experts of a layer together: as many parameters as the prompts


def main() -> None:
    """Write the sizes as ``dmp train --method scratch --backbone`` reads them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--size", choices=SIZES, required=True)
    given = parser.parse_args()
    given.path.write_text(json.dumps(SIZES[given.size]))


if __name__ == "__main__":
    main()
