"""What tests of latent stores share: a tiny VAE, a store of it, and the files of that store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dmp_cli.backbones.base import Backbone
from dmp_cli.config import CodecRecord
from dmp_cli.data.folder import find_images
from dmp_cli.latents.codec import Codec, VAECodec
from dmp_cli.latents.fill import describe_store, encode_missing
from dmp_cli.latents.store import LatentStore
from tests.backbones.pipelines import tiny_vae
from tests.builders import tiny_dit

CPU = torch.device("cpu")
COUNT = 11


def latent_dit() -> Backbone:
    return tiny_dit(in_channels=4)


def vae_codec(*, digest: str = "one", seed: int = 0) -> VAECodec:
    return VAECodec(tiny_vae(seed=seed).eval(), CodecRecord(kind="vae", source="here", digest=digest))


def store_of(data: Path, folder: Path, *, codec: Codec | None = None, flip: bool = True) -> LatentStore:
    backbone = latent_dit() if codec is None or codec.record.kind != "pixel" else tiny_dit(input_size=16)
    store = LatentStore(folder, describe_store(find_images(data), codec or vae_codec(), backbone, flip=flip))
    store.claim()
    return store


def make(store: LatentStore, data: Path, *, codec: Codec | None = None, **how: Any) -> list[int]:
    options: dict[str, Any] = {"max_bad": 0, "device": CPU, **how}
    return list(encode_missing(store, images=find_images(data), codec=codec or vae_codec(), **options))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.*") if path.is_file()}
