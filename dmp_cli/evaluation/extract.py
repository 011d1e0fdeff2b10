"""Measures a folder or zip of images: from files to statistics, with features that are kept as they are made.

Letters: n images, d features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import MAX_PIXELS
from ..data import BOUNDS, Bounds, ImageSource
from ..errors import DataError, MetricError
from ..runtime import tracking
from ..version import __version__
from .distances import fit_gaussian
from .embedding import Embedded, Images, Preprocessing, embed_batches, join, unreadable
from .features import Extractor
from .kept_features import KeptFeatures, rows_per_file
from .samples import find_samples
from .statistics import Provenance, Statistics

Log = Callable[[str], None]


def silent(message: str) -> None:
    """A log that writes nothing."""


@dataclass(frozen=True)
class Measurement:
    """One set of images that is measured: which images, through which network, after which changes."""

    path: Path
    images: Images
    extractor: Extractor
    changes: Preprocessing
    batch_size: int
    part: tuple[int, int] | None
    bounds: Bounds

    @property
    def key(self) -> dict[str, Any]:
        """All that fixes the features: images and the times of their files, network, changes, device, versions."""
        source, stamps = self.images.source, hashlib.sha256()
        for index in map(int, self.images.indices):
            stamps.update(f"{index} {tuple(source.stamp(index))}\n".encode())
        return {
            "fingerprint": source.fingerprint,
            "stamps": stamps.hexdigest(),
            "limits": (self.images.max_pixels, self.bounds.max_file_size),
            "part": self.part,
            "features": (self.extractor.name, self.extractor.digest, self.extractor.resize),
            "crop": self.changes.crop,
            "codec": self.changes.codec and self.changes.codec.record.digest,
            "batch_size": self.batch_size,
            "device": self.extractor.device.partition(":")[0],
            "versions": (__version__, torch.__version__, np.__version__, version("pillow")),
        }

    def keep_in(self, folder: Path | None) -> KeptFeatures | None:
        """Where features are kept; None: nowhere, as no folder is given or one file would hold all of them."""
        count = len(self.images.indices)
        if folder is None or rows_per_file(count, batch_size=self.batch_size) >= count:
            return None
        return KeptFeatures(folder, self.key, count=count, batch_size=self.batch_size)

    def embed(self, places: np.ndarray) -> Iterator[Embedded]:
        """The features of the images at these places of the set (k,), batch after batch.

        Raises:
            MetricError: an image cannot be read, or the images do not fit the extractor.
        """
        todo, done = self.images.indices[places], 0
        try:
            with tracking(f"measure {self.path.name}", len(todo)) as advance:
                for batch in embed_batches(
                    self.images, self.extractor, self.changes, todo=todo, batch_size=self.batch_size
                ):
                    yield batch
                    done += len(batch.rows)
                    advance(done, "")
        except DataError as error:
            raise unreadable(self.images, error) from error
        except MetricError as error:
            raise MetricError(f"{self.path}: {error.message}", hint=error.hint) from error

    def fill(self, kept: KeptFeatures, *, share: tuple[int, int], stop: Callable[[], None]) -> None:
        """Make the missing files of one share (k, n): every n-th file from the k-th. ``stop`` may raise an error."""
        numbers = [number for number in kept.missing() if number % share[1] == share[0]]
        if not numbers:
            return
        spans = kept.spans
        batches = self.embed(np.concatenate([np.arange(spans[number].start, spans[number].stop) for number in numbers]))
        for number in numbers:
            found: list[Embedded] = []
            while sum(len(batch.rows) for batch in found) < len(spans[number]):
                stop()
                found.append(next(batches))
            kept.write(number, join(found))
        next(batches, None)  # ends what shows the progress

    def statistics(self, folder: Path | None, log: Log) -> Statistics:
        """The statistics of all images; features are kept in ``folder``, and those that are there are used."""
        kept = self.keep_in(folder)
        if kept is None:
            measured: Embedded | None = join(list(self.embed(np.arange(len(self.images.indices)))))
        else:
            self.fill(kept, share=(0, 1), stop=lambda: None)
            while (measured := kept.load()) is None:  # what was damaged is made again
                self.fill(kept, share=(0, 1), stop=lambda: None)
        assert measured is not None
        for remark in measured.remarks:
            log(f"warning: {remark}")
        provenance = Provenance(
            features=self.extractor.name,
            digest=self.extractor.digest,
            count=len(measured.rows),
            source=self.path.name,
            fingerprint=self.images.source.fingerprint,
            image_sizes=tuple(sorted(measured.sizes)),
            resize=self.extractor.resize,
            crop=self.changes.crop,
            codec=self.changes.codec and self.changes.codec.record.digest,
            jpegs=measured.jpegs,
            part=self.part,
        )
        return Statistics(fit_gaussian(measured.rows), measured.rows, provenance)


def find_measurement(
    path: Path,
    extractor: Extractor,
    *,
    batch_size: int,
    changes: Preprocessing | None = None,
    part: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    bounds: Bounds = BOUNDS,
) -> Measurement:
    """What :func:`measure` measures, with its arguments and errors: all samples of a folder or .zip."""
    source, indices = find_samples(path, bounds=bounds)
    images = Images(source, _take(source, indices, part), max_pixels)
    return Measurement(Path(path), images, extractor, changes or Preprocessing(), batch_size, part, bounds)


def measure(
    path: Path, extractor: Extractor, *, log: Log = silent, folder: Path | None = None, **how: Any
) -> Statistics:
    """Compute the statistics of all samples of a folder or .zip, in sorted order, in batches of ``batch_size``.

    ``part`` (k, n) takes image k, counted from 0, and every n-th after it, of all images sorted by class, so that each
    part has its share of every class.

    Images of more than ``max_pixels``, or beyond ``bounds``, cannot be read. ``log`` gets what Pillow warned of. In
    ``folder`` features are kept as they are made.

    Raises:
        DataError: the folder or .zip holds no images.
        MetricError: it holds only one, an image cannot be read (a score over fewer images would not be comparable), or
            the images do not fit the extractor.
    """
    return find_measurement(path, extractor, **how).statistics(folder, log)


def _take(source: ImageSource, indices: np.ndarray, part: tuple[int, int] | None) -> np.ndarray:
    """The images of one part. Raises MetricError where a score could not be computed of it."""
    if part is None:
        return indices
    # Shards may hold their classes in turn: then every second image alone would be of every second class.
    by_class = indices[np.argsort(np.asarray(source.labels)[indices], kind="stable")]
    taken = np.sort(by_class[part[0] :: part[1]])
    if len(taken) < 2:
        raise MetricError(
            f"{source.path}: part {part[0] + 1} of {part[1]} holds {len(taken)} images, and a score needs two"
        )
    return taken
