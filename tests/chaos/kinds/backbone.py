"""Weight files of backbones, damaged and forged: Meta's .pt, this tool's own safetensors, and folders of diffusers."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dmp_cli.backbones import load_backbone, save_backbone
from tests.backbones.flow_pipelines import tiny_flux, tiny_sd3
from tests.backbones.pipelines import tiny_pixart, tiny_plain_unet, tiny_unet

from ...builders import PIXELS, call_of, diffusers_dit, tiny_dit, write_meta_checkpoint
from ..cases import Kind
from ..damage import DAMAGES
from ..forged_json import FORGERIES, JSON_WAYS, hostile
from ..sound import Write, misplace
from ..tensor_files import TENSOR_WAYS, lie_about_length, parse

_DIFFUSERS = {
    "dit": diffusers_dit,
    "unet": tiny_unet,
    "plain": tiny_plain_unet,
    "pixart": tiny_pixart,
    "sd3": tiny_sd3,
    "flux": tiny_flux,
}
_HUGE = (10**9, 10**12, 10**30, 2**63, 10**5, 0, -1, 0.5, None, True, "16", [16])


class Backbones(Kind):
    def __init__(self, base: Path) -> None:
        super().__init__(base)
        write_meta_checkpoint(base / "meta.pt", tiny_dit())
        save_backbone(base / "native.safetensors", tiny_dit(), codec=PIXELS, training={})
        for name, build in _DIFFUSERS.items():
            build().save_pretrained(base / name)
        self.native = parse((base / "native.safetensors").read_bytes())
        self.about = json.loads(self.native.metadata["dmp.backbone"])
        self.ways: dict[str, Write] = {
            **{f"meta, bytes: {name}": self._bytes("meta.pt", way) for name, way in DAMAGES.items()},
            "meta, content": self._content,
            "meta, tensors": self._odd_tensors,
            **{f"native, bytes: {name}": self._bytes("native.safetensors", way) for name, way in DAMAGES.items()},
            **{f"native, tensors: {name}": self._native(way) for name, way in TENSOR_WAYS.items()},
            "native, lies of length": self._native(lie_about_length),
            **{f"native, header: {name}": self._header(way) for name, way in JSON_WAYS.items()},
            **{f"native, sizes: {name}": self._sizes(way) for name, way in FORGERIES.items()},
            "native, sizes: huge": self._huge,
            **{f"folder, config: {name}": self._config(way) for name, way in JSON_WAYS.items()},
            "folder, config: huge": self._config(self._huge_field),
            **{f"folder, weights: {name}": self._weights(way) for name, way in TENSOR_WAYS.items()},
            **{f"folder, bytes: {name}": self._folder_bytes(way) for name, way in DAMAGES.items()},
            "folder, misplaced": self._misplaced,
        }

    def write(self, place: Path) -> None:
        shutil.copy(self.base / "native.safetensors", place / "native.safetensors")

    def _bytes(self, name: str, way: Callable[[bytes, random.Random], bytes]) -> Write:
        return lambda rng, place: (place / name).write_bytes(way((self.base / name).read_bytes(), rng))

    def _content(self, rng: random.Random, place: Path) -> None:
        """A pickle of something else, or of weights in odd wrappers."""
        weights = dict(tiny_dit().state_dict())
        deep: Any = weights
        for _ in range(rng.choice((3, 200))):
            deep = {"model": deep}
        contents = (
            None,
            3,
            [],
            {},
            "x",
            [weights],
            {"ema": None},
            {"ema": {}},
            {"ema": hostile(rng)},
            {1: torch.ones(2)},
        )
        more = ({"model": weights, "ema": {"x": torch.ones(2)}}, deep, {**weights, "x": hostile(rng)}, torch.ones(3))
        shadow = {"ema": {"shadow_params": [torch.ones(1)] * 3}, "model": weights}, {"shadow_params": hostile(rng)}
        looped: dict[str, Any] = {}
        looped["model"] = looped
        named = {f"{rng.choice(('x', '', 'module', '_orig_mod'))}.{name}": value for name, value in weights.items()}
        torch.save(rng.choice((*contents, *more, *shadow, looped, named)), place / "meta.pt")

    def _odd_tensors(self, rng: random.Random, place: Path) -> None:
        """One tensor of another shape, type or layout, some of them huge for their bytes."""
        weights = {name: tensor.clone() for name, tensor in tiny_dit().state_dict().items()}
        name = rng.choice(list(weights))
        old = weights[name]
        odd: tuple[Callable[[], Any], ...] = (
            *(
                lambda: torch.ones(1).expand(10**6, 10**6),
                lambda: old.to_sparse(),
                lambda: old.to("meta"),
                lambda: old.half(),
            ),
            *(
                lambda: old.long(),
                lambda: old * float("nan"),
                lambda: old.bool(),
                lambda: old[None],
                lambda: old.cfloat(),
            ),
            *(
                lambda: torch.ones(1).expand(old.shape),
                lambda: torch.empty(0),
                lambda: old.flatten(),
                lambda: old.double(),
            ),
            *(
                lambda: torch.quantize_per_tensor(old, 0.1, 0, torch.qint8),
                lambda: hostile(rng),
                lambda: old.bfloat16(),
            ),
            *(
                lambda: torch.nn.Parameter(old),
                lambda: torch.zeros(10**9, 10**9, layout=torch.sparse_coo),
                lambda: old.t(),
            ),
        )
        weights[name] = rng.choice(odd)()
        torch.save(rng.choice(({"ema": weights}, weights)), place / "meta.pt")

    def _native(self, way: Callable[..., Any]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            made = way(self.native, rng)
            (place / "native.safetensors").write_bytes(made if isinstance(made, bytes) else made.data())

        return write

    def _about(self, place: Path, text: str) -> None:
        made = type(self.native)({**self.native.metadata, "dmp.backbone": text}, self.native.entries, self.native.body)
        (place / "native.safetensors").write_bytes(made.data())

    def _header(self, way: Callable[[Any, random.Random], bytes]) -> Write:
        return lambda rng, place: self._about(place, way(self.about, rng).decode("utf-8", "surrogateescape"))

    def _sizes(self, way: Callable[[Any, random.Random], Any]) -> Write:
        return lambda rng, place: self._about(place, json.dumps({**self.about, "sizes": way(self.about["sizes"], rng)}))

    def _huge(self, rng: random.Random, place: Path) -> None:
        forged = {**self.about["sizes"], rng.choice(list(self.about["sizes"])): rng.choice(_HUGE)}
        about = {**self.about, "sizes": forged}
        if rng.random() < 0.2:
            about |= {"side": rng.choice(_HUGE)}
        self._about(place, json.dumps(about))

    def _folder(self, rng: random.Random, place: Path) -> Path:
        name = rng.choice(list(_DIFFUSERS))
        shutil.copytree(self.base / name, place / name)
        return place / name

    def _config(self, way: Callable[[Any, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            path = self._folder(rng, place) / "config.json"
            path.write_bytes(way(json.loads(path.read_text()), rng))

        return write

    def _huge_field(self, value: Any, rng: random.Random) -> bytes:
        names = [name for name, old in value.items() if isinstance(old, (int, list)) and not isinstance(old, bool)]
        return json.dumps(
            {**value, rng.choice(names): rng.choice((*_HUGE, [10**9], [10**9] * 4, [0, 0], [16] * 300))}
        ).encode()

    def _weights(self, way: Callable[..., Any]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            path = self._folder(rng, place) / "diffusion_pytorch_model.safetensors"
            path.write_bytes(way(parse(path.read_bytes()), rng).data())

        return write

    def _folder_bytes(self, way: Callable[[bytes, random.Random], bytes]) -> Write:
        def write(rng: random.Random, place: Path) -> None:
            path = rng.choice(sorted(self._folder(rng, place).iterdir()))
            path.write_bytes(way(path.read_bytes(), rng))

        return write

    def _misplaced(self, rng: random.Random, place: Path) -> None:
        misplace(rng.choice(sorted(self._folder(rng, place).iterdir())), rng)

    def open(self, place: Path, way: str) -> str | None:
        (path,) = place.iterdir()
        told: dict[str, Any] = {"num_classes": 4, "num_heads": 2} if path.name == "meta.pt" else {}
        told |= {"trained_with": "meta"} if path.name == "dit" else {}
        backbone = load_backbone(str(path), **told)
        if not all(tensor.isfinite().all() for tensor in backbone.state_dict().values()):
            return "weights that are not finite were loaded"
        if backbone.takes_text:
            return None
        with torch.no_grad():
            backbone(*call_of(backbone, count=1))
        return None
