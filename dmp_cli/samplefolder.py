"""The folder one ``sample`` command owns: numbered PNGs, a labelled grid, and samples.json: how they were made."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import files
from .config import SampleConfig
from .errors import ConfigError

_ABOUT = "samples.json"
_GRID = "grid.png"
_LABEL = 24  # letters of a prompt under its image


class SampleFolder:
    """Paths and files of one set of samples."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def recorded(self) -> dict[str, Any] | None:
        """What samples.json says; None when there is none.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            content = json.loads((self.path / _ABOUT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise ConfigError(f"cannot read {self.path / _ABOUT}: {error}", hint="Start again with --force.") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{self.path / _ABOUT} is none of this tool's", hint="Start again with --force.")
        return content

    def open(self, about: dict[str, Any], *, origin: dict[str, Any], num_images: int, force: bool) -> list[str]:
        """Claim the folder for samples made as ``about`` says, or check that they continue those that are there.

        Returns what of ``origin`` (versions, device, paths: what may move a pixel by a level, or nothing) is not as it
        was when the folder was begun.

        Raises:
            ConfigError: the folder holds other samples or other files.
        """
        before = self.recorded()
        moved: list[str] = []
        if before is not None and not force:
            moved = sorted(key for key in origin if before.get("origin", {}).get(key) != origin[key])
            changed = sorted(key for key in about if before.get("made", {}).get(key) != about[key])
            if changed:
                raise ConfigError(
                    f"{self.path} holds samples made otherwise ({', '.join(changed)} differ)",
                    hint="Give another -o, or replace them with --force.",
                )
            num_images = max(num_images, int(before.get("num_images", 0)))
        else:
            files.refuse_existing(self.path, force=force)
            self._clear()
        self.path.mkdir(parents=True, exist_ok=True)
        files.remove_partials(self.path)
        first = before["origin"] if before is not None and not force and "origin" in before else origin
        files.write_json(self.path / _ABOUT, {"num_images": num_images, "made": about, "origin": first})
        return moved

    def _clear(self) -> None:
        images = [path for path in self.path.glob("*.png") if re.fullmatch(r"\d{6,}", path.stem)]
        for path in [*images, self.path / _ABOUT, self.path / _GRID]:
            path.unlink(missing_ok=True)

    def image_path(self, index: int) -> Path:
        """Where image ``index`` is, or will be."""
        return self.path / f"{index:06d}.png"

    def missing(self, chunks: list[range], *, num_images: int) -> list[range]:
        """The chunks of which not every image below ``num_images`` is there."""
        return [chunk for chunk in chunks if not all(self.image_path(i).exists() for i in chunk if i < num_images)]

    def write(self, images: Mapping[int, np.ndarray]) -> None:
        """Write images, uint8 (H, W, C) by index, as PNGs; those that are there stay as they are."""
        new = {self.image_path(index): pixels for index, pixels in images.items()}
        missing = {path.name: encode_png(pixels) for path, pixels in new.items() if not path.exists()}
        files.write_many(self.path, missing)

    def draw_grid(self, config: SampleConfig, *, rows: int, columns: int) -> Path:
        """A grid of the first images, labelled with index and class."""
        from .mosaic import image_grid
        from .sampling import label_of, prompt_of

        indices = range(min(config.num_images, rows * columns))
        images = [np.atleast_3d(np.asarray(Image.open(self.image_path(index)))) for index in indices]
        labels = []
        for index in indices:
            label, prompt = label_of(index, config), prompt_of(index, config)
            said = f"class {label}" if label is not None else _short(prompt.text) if prompt is not None else ""
            labels.append(f"{index}: {said}" if said else f"{index}")
        path = self.path / _GRID
        files.write_bytes(path, image_grid(images, rows=rows, columns=columns, labels=labels))
        return path


def _short(text: str) -> str:
    return text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of uint8 (H, W, 3) or (H, W, 1)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(buffer, format="PNG")
    return buffer.getvalue()
