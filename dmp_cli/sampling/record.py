"""The file samples.json of a folder of samples: how its images were made, whoever wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..data import check_about, is_ours
from ..errors import ConfigError
from ..storage import read_json
from ..version import __version__


class SampleRecord(NamedTuple):
    """The parts of samples.json; a part that the file lacks is empty."""

    made: dict[str, Any]  # everything that fixes the images
    sample: dict[str, Any]  # the sampler's settings, a part of ``made``
    origin: dict[str, Any]  # where and with which versions they were made
    num_images: int | None  # how many images the folder was begun for

    @property
    def is_bare(self) -> bool:
        """Whether the record says that the images come from a backbone without a patch or adapter."""
        return bool(self.made) and self.made.get("patch") is None and self.made.get("adapter") is None


def load_about(path: Path) -> dict[str, Any] | None:
    """The content of the samples.json at ``path``; None when there is no such file.

    Raises:
        ConfigError: it cannot be read, or holds no JSON object.
    """
    try:
        content = read_json(path, paths=True) if path.exists() else None
    except ConfigError as error:
        raise ConfigError(error.message, hint="Start again with --force.") from error
    if content is None:
        return None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} was not written by this tool", hint="Start again with --force.")
    check_about(content, name=str(path), kind=ConfigError, hint="Start again with --force.")
    return content


def read_record(content: Any) -> SampleRecord:
    """The record in a samples.json, where ``content`` is the parsed file.

    A file that another tool wrote is read as far as it has our structure.
    """
    content = content if is_ours(content) else {}
    made, count = _table(content.get("made")), content.get("num_images")
    sample, origin = _table(made.get("sample")), _table(content.get("origin"))
    return SampleRecord(made, sample, origin, count if isinstance(count, int) else None)


def versions() -> dict[str, str]:
    """The versions of the libraries that the pixels of new samples depend on, and of this tool."""
    import diffusers
    import torch

    return {"dmp": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__}


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
