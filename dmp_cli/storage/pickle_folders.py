"""Folders of models for other libraries to load, without a pickle that they would open by a reader of their own."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file

from .containers import find_weights_in
from .model_files import ModelFiles, find_model_files
from .pickles import read_pickle


@contextlib.contextmanager
def unpickled(folder: Path, *stems: str, to: str) -> Iterator[Path]:
    """Context that gives a folder like ``folder`` whose weights are safetensors: itself, unless they are pickles.

    Else it is a temporary one, made by our own reader of pickles, part by part.

    Args:
        stems: what the names of its weight files may begin with; the first that is there counts.
        to: what names of weight files begin with in the temporary folder.

    Raises:
        CheckpointError: a pickle is damaged, or would run code.
    """
    found = (find_model_files(folder, stem) for stem in stems if folder.is_dir())
    weights = next((files for files in found if files is not None), None)
    if weights is None or weights.files[0].name.endswith(".safetensors"):
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        for config in folder.glob("*config.json"):
            shutil.copyfile(config, Path(name) / config.name)
        _convert(weights, Path(name), to)
        yield Path(name)


def _convert(weights: ModelFiles, folder: Path, stem: str) -> None:
    count = len(weights.files)
    places: dict[str, str] = {}
    for number, file in enumerate(weights.files, start=1):
        # tensors of a pickle may share their bytes, which those of safetensors may not
        tensors = {name: t.clone().contiguous() for name, t in find_weights_in(read_pickle(file), file).items()}
        part = f"{stem}.safetensors" if count == 1 else f"{stem}-{number:05d}-of-{count:05d}.safetensors"
        save_file(tensors, folder / part, {"format": "pt"})
        places |= dict.fromkeys(tensors, part)
    if count > 1:
        index = {"metadata": {}, "weight_map": places}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
