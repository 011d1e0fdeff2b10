"""A data set of samples: a folder or zip that ``dmp sample`` has filled, with or without tars.

Its images are the numbered ones, in the order of their numbers; classes and captions come from its own records. So the
same samples are the same data set, whether they lie in files of their own or in tars. n images.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..storage import HEADER_BYTES, array_header
from .bounds import Bounds
from .classes import ClassNames
from .decoding import naming
from .packed_strings import PackedStrings
from .sample_files import GROUP, IMAGE, LATENT, image_name
from .sample_places import SamplePlaces, find_places, open_samples
from .sample_records import SampleNotes, SampleRecords
from .source import ImageSource, Stamp

_RULES = 3  # the first by which they are listed like this


class OwnSamples(ImageSource):
    """The images of one folder or zip of samples. They are shuffled in the groups in which tars hold them.

    ``latent_codec``: the codec of the latents that are kept beside the images; None: none are.
    """

    def __init__(self, places: SamplePlaces, notes: SampleNotes) -> None:
        self.path, self.rules, self.passed_over = places.path, _RULES, {}
        self.labels, self.classes, self.latent_codec = notes.labels, notes.classes, notes.codec
        count = len(notes.labels)
        self.spans = np.array([*range(0, count, GROUP), count], np.int64)
        self._places = places
        self._prompts = None if notes.prompts is None else PackedStrings(notes.prompts)
        self.fingerprint = hashlib.sha256(b"".join(self._rows(notes))).hexdigest()

    def _rows(self, notes: SampleNotes) -> Iterator[bytes]:
        """What the fingerprint is of: nothing that differs between single files and tars."""
        yield f"samples of {len(notes.classes)} classes\n".encode()
        if notes.codec is not None:
            yield f"latents of {notes.codec.digest}\n".encode()
        for index, (label, size) in enumerate(zip(notes.labels, self._places.sizes, strict=True)):
            prompt = "" if notes.prompts is None else notes.prompts[index]
            yield f"{image_name(index)}\0{size}\0{label}\0{prompt}\n".encode("utf-8", "surrogateescape")

    @property
    def captioned(self) -> np.ndarray:
        return np.full(len(self), self._prompts is not None)

    def captions(self, index: int) -> list[str]:
        if self._prompts is None:
            raise DataError(f"{self.name(index)} has no caption")
        return [self._prompts[index]]

    def name(self, index: int) -> str:
        return self._places.name(index)

    def read(self, index: int) -> bytes:
        return self._places.read(index)

    def read_latent(self, index: int) -> np.ndarray:
        """The latent that image ``index`` was decoded from, float32 (C, h, w).

        Raises:
            DataError: it is damaged; the message names its file.
        """
        data = self._places.read(index, LATENT)
        with naming(self._places.name(index, LATENT)):
            header = array_header(data[:HEADER_BYTES], size=len(data))
            if header.dtype != np.dtype("<f4") or header.by_columns or len(header.shape) != 3:
                raise ValueError(f"it holds {header.dtype} {header.shape}, not the float32 values of one latent")
            values = np.frombuffer(data, header.dtype, count=math.prod(header.shape), offset=header.begin)
            if not np.isfinite(values).all():
                raise ValueError("its values are not all finite")
            return values.reshape(header.shape).astype(np.float32)

    def stamp(self, index: int) -> Stamp:
        return self._places.stamp(index)


def find_own_samples(path: Path, *, named: ClassNames | None, bounds: Bounds) -> OwnSamples | None:
    """List the samples in a folder or zip that ``dmp sample`` has filled; None: it has not.

    ``named``: names of the classes, for those in its records.

    Raises:
        DataError: samples are missing, other images lie among them, its records are missing or damaged, or ``named``
            names another number of classes.
    """
    opened = open_samples(path, bounds)
    if opened is None:
        return None
    container, prefix, entries = opened
    records = SampleRecords(container, prefix, entries)
    about = records.about()
    if about is None:
        return None
    count = int(about["num_images"])
    suffixes = (IMAGE, LATENT) if about["made"].get("latents") is not None else (IMAGE,)
    places = find_places(container, prefix, entries, count=count, suffixes=suffixes)
    notes = records.notes(about, count)
    if named is not None and notes.classes:
        if len(named.names) != len(notes.classes):
            raise DataError(f"{named.place} names {len(named.names)} classes, but {path} has {len(notes.classes)}")
        notes = notes._replace(classes=list(named.names))
    return OwnSamples(places, notes)
