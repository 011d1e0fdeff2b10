"""What a search is about; of its images the three parts: those trained on, those that choose, those of the final."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from ..inner_options import identify_images, identify_network

if TYPE_CHECKING:
    from ...data import ImageSource
    from ...pipeline import Loaded
    from ...tuning import Tuning
    from .planning import Request


def about_of(plan: Tuning, request: Request, loaded: Loaded) -> dict[str, Any]:
    """What may not change between two calls: by fingerprints rather than paths, so that all may be moved."""
    free = {"folder", "backbone", "data", "held_out", "final_held_out", "reference", "trials", "ranges", "grey"}
    free |= {"round_size"} if plan.round_size is None else set()  # earlier versions do not know it
    about = {key: value for key, value in asdict(plan).items() if key not in free}
    ranges = {one.name: one.in_toml().partition(" = ")[2] for one in plan.ranges.free}
    links = request.options.follow_links
    reference = None
    if plan.reference is not None:
        embedded = request.options.data is None and request.scoring.reference is None
        reference = "embedded digits" if embedded else identify_images(plan.reference, follow_links=links)
    inputs = {
        **check_parts(plan, request, loaded),
        "reference": reference,
        **identify_network(loaded, prompts=request.sampling.prompts),
    }
    return {**about, "ranges": ranges, "fixed": dict(plan.ranges.fixed), "inputs": inputs}


def check_parts(plan: Tuning, request: Request, loaded: Loaded) -> dict[str, Any]:
    """Fingerprints of the images, once it is certain that no image is in two parts.

    Files of the same size are read for that, unless the search has begun: its journal holds the fingerprints.

    Raises:
        DataError: there are no images, or an image of the final chooses too, or is trained on.
        ConfigError: colours would be lost.
    """
    share = plan.held_out[1] if plan.held_out[0] == "--val-split" else None
    if request.options.data is None and share is not None:
        return {"data": "embedded digits", "val-data": share, "final-data": None}
    from ...data import Subset, hold_out, refuse_shared

    images: ImageSource | None = None if request.options.data is None else _find(request, request.options.data)
    if images is not None:
        _check_colours(images, request, loaded)
    if share is not None:
        assert images is not None
        kept, held = hold_out(images, float(share))
        other: ImageSource = Subset(images, held)
        images = Subset(images, kept)
    else:
        other = _find(request, request.images.val_data)
    choosing, final = (
        _halves(other) if plan.final_held_out is None else (other, _find(request, request.images.final_data))
    )
    if not plan.journal.exists():
        refuse_shared(final, choosing, which=range(len(final)), used="in the search")
        for part in (choosing, final):
            if images is not None:
                refuse_shared(part, images, which=range(len(part)))
    return {
        "data": "embedded digits" if images is None else images.fingerprint,
        "val-data": share or other.fingerprint,
        "final-data": None if plan.final_held_out is None else final.fingerprint,
    }


def _find(request: Request, path: Path | None) -> ImageSource:
    from ...data import Bounds, find_images

    assert path is not None
    return find_images(path, bounds=Bounds(follow_links=request.options.follow_links))


def _halves(images: ImageSource) -> tuple[ImageSource, ImageSource]:
    """Every second image each, as ``--val-part 1/2`` and ``2/2`` take them."""
    import numpy as np

    from ...data import Subset

    if len(images) < 2:
        raise DataError(
            f"{len(images)} images are held out, and half of them is to choose, half to score",
            hint="Give more with --val-split or --val-data.",
        )
    indices = np.arange(len(images))
    return Subset(images, indices[::2]), Subset(images, indices[1::2])


def _check_colours(images: ImageSource, request: Request, loaded: Loaded) -> None:
    from ...data import look_at

    look_at(images).check_colours(channels=loaded.codec.image_channels, allowed=request.options.grey)
