"""What tests of latents share: small store files, images, VAEs of both kinds, and a backbone of latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dmp_cli.backbones.base import Backbone
from dmp_cli.latents import encoding
from tests.builders import write_images

from .autoencoders import kl_vae, tiny_vae
from .stores import COUNT, latent_dit


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmp_cli.latents.store._FILE_BYTES", 4 * 2 * 8 * 8 * 8 * 4)  # four images of the tiny VAE
    monkeypatch.setattr(encoding, "_CHUNK", 2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", count=COUNT, size=16)


@pytest.fixture
def vaes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folders of both kinds, and the models they were saved from."""
    place, models = tmp_path_factory.mktemp("vaes"), {"kl": kl_vae(), "tiny": tiny_vae()}
    for name, model in models.items():
        model.save_pretrained(place / name)
    return place, models


@pytest.fixture
def latent_backbone() -> Backbone:
    return latent_dit()
