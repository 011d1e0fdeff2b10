"""What ``--adapter`` takes, whichever kind it is: the folder of a LoRA or DoRA, or a file of tuned weights."""

from __future__ import annotations

from pathlib import Path

from ..backbones import Backbone
from ..config import TrainingRecord
from ..errors import CheckpointError
from ..storage import check_types
from .lora import Adapter
from .lora_file import ADAPTER_TENSORS, load_adapter, read_training
from .tuned import Tuned
from .tuned_file import load_tuned, read_tuned


def load_any_adapter(path: Path, backbone: Backbone) -> Adapter | Tuned:
    """Put what ``path`` holds into ``backbone``, frozen. All checks come before the first change.

    Raises:
        CheckpointError: it is missing, damaged or made for another backbone.
        ConfigError: it is a LoRA or DoRA, and peft is not installed.
    """
    is_file = path.is_file() or path.suffix == ".safetensors"  # one that is missing is named as a file
    return load_tuned(path, backbone) if is_file else load_adapter(path, backbone)


def tensors_of(path: Path) -> Path:
    """The file that holds the tensors, whose SHA-256 says which adapter it is."""
    return path / ADAPTER_TENSORS if path.is_dir() else path


def training_of(path: Path) -> TrainingRecord:
    """What it says of its training. Raises CheckpointError if it is missing or damaged."""
    if not path.is_file():
        return read_training(path)
    told = read_tuned(path)[0].training or {}
    return check_types(TrainingRecord, told, name=f"the training in {path}", kind=CheckpointError)
