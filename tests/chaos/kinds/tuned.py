"""Files of tuned weights, damaged, or forged and sealed anew: each is refused, or is what its own bytes say."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dmp_cli.config import CodecRecord
from dmp_cli.patching import create_tuned, load_tuned, read_tuned, save_tuned
from tests.patching.adapters import known

from ...builders import call_of
from ..cases import Kind
from ..damage import DAMAGES
from ..forged_json import JSON_WAYS
from ..tensor_files import TENSOR_WAYS, TensorFile, lie_about_length, parse, values_of

_RECORD, _SEAL = "dmp.tuned", "dmp.sha256"
_METHODS: tuple[Any, ...] = ("bitfit", "difffit", "lora", "", None, 1, ["bitfit"])


def sealed(file: TensorFile) -> TensorFile:
    """``file`` with the seal that its bytes ask for."""
    blank = TensorFile({**file.metadata, _SEAL: "0" * 64}, file.entries, file.body)
    digest = hashlib.sha256(blank.data()).hexdigest()
    return TensorFile({**file.metadata, _SEAL: digest}, file.entries, file.body)


class TunedWeights(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.files = []
        for method in ("bitfit", "difffit"):
            tuned = create_tuned(known(), method)  # type: ignore[arg-type]
            path = base / f"{method}.safetensors"
            save_tuned(path, tuned, codec=CodecRecord(), image_size=8, training={"steps_done": 3})
            self.files.append(sealed(parse(path.read_bytes())))
        self.ways = {
            **{f"raw: {name}": self._raw(damage) for name, damage in DAMAGES.items()},
            **{f"tensors: {name}": self._tensors(way) for name, way in TENSOR_WAYS.items()},
            **{f"record: {name}": self._record(way) for name, way in JSON_WAYS.items()},
            "method": self._record(lambda record, rng: json.dumps({**record, "method": rng.choice(_METHODS)}).encode()),
            "lies of length": self._raw(lambda data, rng: lie_about_length(parse(data), rng)),
        }

    def write(self, place: Path) -> None:
        self._put(place, self.files[1].data())

    def _put(self, place: Path, data: bytes) -> None:
        (place / "tuned.safetensors").write_bytes(data)

    def _raw(self, damage: Callable[..., bytes]) -> Callable[[random.Random, Path], None]:
        return lambda rng, place: self._put(place, damage(rng.choice(self.files).data(), rng))

    def _tensors(self, way: Callable[..., TensorFile]) -> Callable[[random.Random, Path], None]:
        return lambda rng, place: self._put(place, sealed(way(rng.choice(self.files), rng)).data())

    def _record(self, way: Callable[..., bytes]) -> Callable[[random.Random, Path], None]:
        def write(rng: random.Random, place: Path) -> None:
            file = rng.choice(self.files)
            text = way(json.loads(file.metadata[_RECORD]), rng).decode("utf-8", "surrogateescape")
            self._put(place, sealed(TensorFile({**file.metadata, _RECORD: text}, file.entries, file.body)).data())

        return write

    def open(self, place: Path, way: str) -> str | None:
        path, backbone = place / "tuned.safetensors", known()
        record, _ = read_tuned(path)
        tuned = load_tuned(path, backbone)
        expected = values_of(parse(path.read_bytes()))
        if tuned.method != record.method or expected.keys() != tuned.parameters.keys():
            return "it holds other tensors than the file"
        for name, values in expected.items():
            if not torch.equal(tuned.parameters[name].detach(), values.float()):
                return "a tensor holds other numbers than the file"
            if not tuned.parameters[name].isfinite().all():
                return "a tensor holds NaN or infinity, and was loaded"
        with torch.no_grad():
            backbone(*call_of(backbone, count=1))
        return None
