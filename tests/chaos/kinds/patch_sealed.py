"""Patch files that somebody forged and sealed anew: each is refused, or is what its own header and bytes say."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dmp_cli.patching import attach, load_patch, read_record, save_patch
from dmp_cli.patching.prompts import Patch
from tests.patching.adapters import known

from ...builders import call_of, filled_patch
from ..cases import Kind
from ..forged_json import FORGERIES, JSON_WAYS, hostile
from ..tensor_files import TENSOR_WAYS, TensorFile, lie_about_length, parse, values_of

_HEADER, _SEAL = "dmp.header", "dmp.sha256"
_HUGE = (
    10**12,
    3 * 10**7,
    10**9,
    2**63,
    2**62,
    10**30,
    0,
    -1,
    -(10**12),
    0.5,
    True,
    None,
    "16",
    "1e12",
    [16],
    float("nan"),
)


class PatchSealed(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.backbone = known()
        patch = filled_patch(self.backbone)
        save_patch(base / "patch.safetensors", patch)
        self.file = parse((base / "patch.safetensors").read_bytes())
        self.record = json.loads(self.file.metadata[_HEADER])
        variants = {"selection": "hard", "top_k": 4}, {"position": "prepend", "num_prompts": 3}, {"gate": "attention"}
        variants += {"experts": "lora", "num_experts": 3, "expert_rank": 2}, {"experts": "both", "gate": "constant"}
        self.records = [self.record]
        self.files = [self.file]
        for number, variant in enumerate(variants):
            path = base / f"{number}.safetensors"
            save_patch(path, filled_patch(self.backbone, **variant))
            self.files.append(parse(path.read_bytes()))
            self.records.append(json.loads(self.files[-1].metadata[_HEADER]))
        self.ways = {
            **{f"tensors: {name}": self._tensors(way) for name, way in TENSOR_WAYS.items()},
            **{f"header: {name}": self._header(way) for name, way in JSON_WAYS.items()},
            **{f"container: {name}": self._container(way) for name, way in JSON_WAYS.items()},
            **{f"config: {name}": self._config(way) for name, way in FORGERIES.items()},
            **{name: self._sizes(name) for name in ("hidden_shapes", "gate_width", "image_size", "format_version")},
            **{name: self._variant(name) for name in ("top_k", "num_prompts", "depth", "gate_scale")},
            **{name: self._variant(name) for name in ("experts", "num_experts", "expert_rank")},
            "expert layers": self._layers,
            "lies of length": lambda rng, place: self._put(place, lie_about_length(self._sealed(self.file), rng)),
        }

    def write(self, place: Path) -> None:
        self._put(place, self._sealed(self.file).data())

    def _put(self, place: Path, data: bytes) -> None:
        (place / "patch.safetensors").write_bytes(data)

    def _sealed(self, file: TensorFile) -> TensorFile:
        """``file`` with the seal that its bytes ask for."""
        blank = TensorFile({**file.metadata, _SEAL: "0" * 64}, file.entries, file.body)
        seal = hashlib.sha256(blank.data()).hexdigest()
        return TensorFile({**file.metadata, _SEAL: seal}, file.entries, file.body)

    def _with(self, record: Any, file: TensorFile | None = None) -> TensorFile:
        file = file or self.file
        text = record.decode("utf-8", "surrogateescape") if isinstance(record, bytes) else json.dumps(record)
        return TensorFile({**file.metadata, _HEADER: text}, file.entries, file.body)

    def _tensors(self, way: Callable[..., TensorFile]) -> Callable[[random.Random, Path], None]:
        return lambda rng, place: self._put(place, self._sealed(way(rng.choice(self.files), rng)).data())

    def _header(self, way: Callable[..., bytes]) -> Callable[[random.Random, Path], None]:
        def write(rng: random.Random, place: Path) -> None:
            number = rng.randrange(len(self.files))
            text = way(self.records[number], rng)
            self._put(place, self._sealed(self._with(text, self.files[number])).data())

        return write

    def _container(self, way: Callable[..., bytes]) -> Callable[[random.Random, Path], None]:
        """The JSON of safetensors itself forged; the seal is right where it is still in its place."""

        def write(rng: random.Random, place: Path) -> None:
            blank = TensorFile({**self.file.metadata, _SEAL: "0" * 64}, self.file.entries, self.file.body)
            data = blank.data(header=way(json.loads(blank.header()), rng))
            mark = f'"{_SEAL}":"{"0" * 64}"'.encode()
            seal = hashlib.sha256(data).hexdigest()
            self._put(place, data.replace(mark, f'"{_SEAL}":"{seal}"'.encode()))

        return write

    def _config(self, way: Callable[..., Any]) -> Callable[[random.Random, Path], None]:
        def write(rng: random.Random, place: Path) -> None:
            number = rng.randrange(len(self.files))
            record = self.records[number]
            forged = {**record, "config": way(record["config"], rng)}
            self._put(place, self._sealed(self._with(forged, self.files[number])).data())

        return write

    def _sizes(self, field: str) -> Callable[[random.Random, Path], None]:
        def write(rng: random.Random, place: Path) -> None:
            value: Any = rng.choice(_HUGE)
            if field == "hidden_shapes":
                shape = [[value, 16], [16, value], [value, value], [value], [], [16] * 1000, value][rng.randrange(7)]
                count = rng.choice((1, 3, 3, 0, 100_000))
                value = rng.choice(([shape] * count, [*self.record[field][1:], shape], hostile(rng)))
            self._put(place, self._sealed(self._with({**self.record, field: value})).data())

        return write

    def _layers(self, rng: random.Random, place: Path) -> None:
        """Layers of experts that are others, of other sizes, missing, or claimed by a patch without experts."""
        number = rng.choice((0, 4, 5))
        record = self.records[number]
        layers = json.loads(json.dumps(record.get("expert_layers") or self.records[4]["expert_layers"]))
        block = rng.choice(layers)
        rng.choice(block)[rng.choice(("inputs", "outputs", "name"))] = rng.choice(
            (*_HUGE, 16, 48, "attn.proj", "", "a.." * 99)
        )
        forged = rng.choice(
            (layers, layers[:1], [], [[] for _ in layers], [*layers, block], [block] * 10_000, hostile(rng))
        )
        self._put(place, self._sealed(self._with({**record, "expert_layers": forged}, self.files[number])).data())

    def _variant(self, field: str) -> Callable[[random.Random, Path], None]:
        def write(rng: random.Random, place: Path) -> None:
            number = {"top_k": 1, "num_prompts": 2}.get(field, rng.choice((4, 5)) if "expert" in field else 0)
            record, value = (
                self.records[number],
                rng.choice((*_HUGE, 1, 2, 17, 1e308, 1e-320, "lora", "both", "prompts")),
            )
            forged = {**record, "config": {**record["config"], field: value}}
            self._put(place, self._sealed(self._with(forged, self.files[number])).data())

        return write

    def open(self, place: Path, way: str) -> str | None:
        path = place / "patch.safetensors"
        record, patch = read_record(path), load_patch(path)
        if patch.record != record:
            return "the header of the loaded patch is not that of its file"
        wrong = _differences(patch, path)
        if wrong:
            return wrong
        patched = attach(self.backbone, patch)
        try:
            with torch.no_grad():
                patched(*call_of(self.backbone, count=1))
        finally:
            patched.detach()
        return None


def _differences(patch: Patch, path: Path) -> str | None:
    """How the tensors of a patch differ from the bytes of its file, read by hand."""
    expected, found = values_of(parse(path.read_bytes())), patch.state_dict()
    if expected.keys() != found.keys():
        return "its tensors have other names than in the file"
    for name, values in expected.items():
        if not values.isfinite().all():
            return "a tensor holds NaN or infinity, and was loaded"
        if not torch.equal(found[name], values.float()):
            return "a tensor holds other numbers than the file"
    return None
