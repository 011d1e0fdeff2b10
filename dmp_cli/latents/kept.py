"""Latents that ``dmp sample`` kept beside its images, in place of what a codec would make of these images."""

from __future__ import annotations

import numpy as np
import torch

from ..backbones import Backbone
from ..data import ImageSource, OwnSamples
from ..errors import DataError
from .codec import Codec, Scaling, VAECodec


class KeptLatents:
    """Reads what a codec keeps of an image, (K, h, w) float32, from the latent that the image was decoded from.

    With a posterior its mean is that latent and its standard deviation is zero: the network made one latent, and not a
    distribution of them. Mirror images have none. It is small to send to worker processes.
    """

    def __init__(self, images: OwnSamples, codec: VAECodec, *, shape: tuple[int, ...]) -> None:
        """``shape``: of a latent, (C', h, w)."""
        self._images, self._shape = images, shape
        self._scaling: Scaling = codec.scaling
        self._has_posterior = codec.has_posterior

    def read(self, index: int, *, mirrored: bool) -> np.ndarray:
        """See :class:`dmp_cli.data.Reader`."""
        assert not mirrored
        latent = self._images.read_latent(index)
        if latent.shape != self._shape:
            raise DataError(f"the latent of {self._images.name(index)} is {latent.shape}, not {self._shape}")
        mean = self._scaling.undo(torch.from_numpy(latent)[None])[0].numpy()
        return np.concatenate([mean, np.zeros_like(mean)]) if self._has_posterior else mean

    def take_remarks(self) -> list[str]:
        """Nothing: no image is decoded."""
        return []


def find_kept(images: ImageSource, codec: Codec, backbone: Backbone, *, flip: bool) -> tuple[KeptLatents | None, str]:
    """The latents beside ``images``, where they can be learnt from; and a sentence on them, empty where there are none.

    ``flip``: whether mirror images are shown too.

    Raises:
        DataError: the first of them is damaged.
    """
    if not isinstance(images, OwnSamples) or images.latent_codec is None:
        return None, ""
    encoded = f"the latents kept in {images.path} are not used, and images are encoded:"
    if not isinstance(codec, VAECodec) or not images.latent_codec.is_same(codec.record):
        return None, f"{encoded} they are of another codec than this backbone's"
    if images.read_latent(0).shape != tuple(backbone.sample_shape):
        return None, f"{encoded} they are of another size than this backbone's"
    if flip:
        return None, f"{encoded} mirror images have none. --no-flip learns from samples as they were made"
    kept = KeptLatents(images, codec, shape=tuple(backbone.sample_shape))
    return kept, f"{len(images):,} latents kept in {images.path}: no image is encoded"
