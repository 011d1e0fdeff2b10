"""The images of a training run, found as its options say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import TrainConfig

if TYPE_CHECKING:
    from ...data import ImageSource
    from ...runtime import World

_MOST_NAMED = 1000  # etags that a record holds one by one


def images_of(
    config: TrainConfig,
    path: Path,
    *,
    world: World | None = None,
    download: bool = False,
    recorded: Mapping[str, Any] | None = None,
) -> ImageSource:
    """The images at ``path``, of --data or --val-data.

    Args:
        world: the processes that all call this, of which one lists for those of its machine; None: this one alone.
        recorded: how a run that goes on has listed them.

    Raises:
        DataError: as :func:`~dmp_cli.data.find_images`.
    """
    from ...data import Bounds, Columns, Elsewhere, find_images, find_together
    from ...runtime import World
    from ...training import as_recorded

    columns = Columns(config.image_column, config.caption_column, config.label_column)
    bounds = Bounds(config.max_file_size, config.follow_links)
    find = partial(
        find_images,
        path,
        class_names=config.class_names,
        bounds=bounds,
        elsewhere=Elsewhere(columns, download, config.cache_size),
        **as_recorded(recorded),
    )
    return find_together(find, world=world or World(), path=path, bounds=bounds)


def images_of_run(
    config: TrainConfig,
    *,
    world: World | None = None,
    download: bool = False,
    recorded: Mapping[str, Any] | None = None,
) -> ImageSource:
    """The images of --data. Those of --val-data are fetched too, so that they are in the cache when they are used."""
    images = images_of(config, config.data, world=world, download=download, recorded=recorded)
    if download and config.val_data is not None:
        images_of(config, config.val_data, world=world, download=True)
    return images


def origin_record(images: ImageSource) -> dict[str, Any]:
    """The part ``data_origin`` of a config.json: etags of remote shards, or the commit of a data set of the hub."""
    origin = images.origin
    if len(origin) > _MOST_NAMED:
        whole = hashlib.sha256(json.dumps(sorted(origin.items())).encode()).hexdigest()
        return {"data_origin": {"count": len(origin), "sha256": whole}}
    return {"data_origin": origin} if origin else {}
