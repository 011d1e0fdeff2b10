"""``evaluate``: scores of samples against real images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import EvalConfig, build
from ..errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from ..evaluation import Evaluation

    Images = Sequence[Image] | np.ndarray


def evaluate(
    samples: str | Path | Sequence[str | Path] | Mapping[str, Images] | EvalConfig,
    reference: str | Path | None = None,
    *,
    device: str = "cpu",
    log: Callable[[str], None] | None = None,
    **options: Any,
) -> Evaluation:
    """Score samples against real images, as ``dmp eval`` does; each set is compared with the first one.

    Args:
        samples: a folder or zip of images, or several of them, the base first; images in memory by the name of their
            set, as PIL images or uint8 (N, H, W, C); or a whole :class:`EvalConfig`.
        reference: a folder of real images, or saved statistics (``.npz``).
        device: where features are computed.
        log: called with each remark on what goes on.
        options: further fields of :class:`EvalConfig`, such as ``metrics=("fid", "kid")`` and ``features="pixels"``.

    Returns:
        Scores with their spread, and where they come from: ``rows`` has one entry a set, ``to_json()`` all.

    Raises:
        ConfigError: what was given is no set of images.
        DataError: a folder holds no images.
        MetricError: a folder was damaged, the reference does not fit the samples, or a metric cannot be computed.
    """
    from ..evaluation import evaluate as score

    how: dict[str, Any] = {"device": device} | ({} if log is None else {"log": log})
    if isinstance(samples, EvalConfig):
        if reference is not None or options:
            raise ConfigError("evaluate(EvalConfig) takes no further options", hint="Put them into the config.")
        return score(samples, **how)
    if reference is None:
        raise ConfigError("no reference given", hint="Name a folder of real images: evaluate(samples, reference).")
    options["reference"] = Path(reference)
    if isinstance(samples, Mapping):
        with tempfile.TemporaryDirectory() as folder:
            files = {_write(images, Path(folder), name): name for name, images in samples.items()}
            found = score(build(EvalConfig, samples=tuple(files), **options), **how)
        return _renamed(found, {str(file): name for file, name in files.items()})
    folders = [samples] if isinstance(samples, str | Path) else samples
    if not all(isinstance(folder, str | Path) for folder in folders):
        raise ConfigError(
            "evaluate() takes images in memory by the name of their set",
            hint='Such as evaluate({"base": images, "patched": others}, reference).',
        )
    return score(build(EvalConfig, samples=tuple(Path(folder) for folder in folders), **options), **how)


def _write(images: Images, folder: Path, name: str) -> Path:
    """Write images as an array that is scored where it lies."""
    import numpy as np

    pixels = [np.asarray(image) for image in images]
    if not pixels or {(one.shape, one.dtype) for one in pixels} != {(pixels[0].shape, np.dtype(np.uint8))}:
        raise ConfigError(f"{name}: these are no images of one size, as PIL images or uint8 (N, H, W, C)")
    file = folder / f"{len(list(folder.iterdir()))}.npz"
    np.savez(file, arr_0=np.stack(pixels))
    return file


def _renamed(found: Evaluation, names: dict[str, str]) -> Evaluation:
    """The same scores with the names of sets instead of the files that they lay in for a while."""

    def told(text: str) -> str:
        for file, name in names.items():
            text = text.replace(file, name)
        return text

    rows = tuple(row.model_copy(update={"samples": told(row.samples)}) for row in found.rows)
    return found.model_copy(update={"rows": rows, "warnings": tuple(map(told, found.warnings))})
