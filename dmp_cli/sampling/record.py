"""What a folder's samples.json says of how its images were made, whoever wrote it."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..version import __version__


class SampleRecord(NamedTuple):
    """The parts of it; empty where it does not say."""

    made: dict[str, Any]  # what fixes the images
    sample: dict[str, Any]  # of that, the sampler's settings
    origin: dict[str, Any]  # where and with what they were made
    num_images: int | None  # images it was begun for

    @property
    def is_bare(self) -> bool:
        """Whether it says that the images come from a backbone without a patch or adapter."""
        return bool(self.made) and self.made.get("patch") is None and self.made.get("adapter") is None


def read_record(content: Any) -> SampleRecord:
    """The record in a samples.json, ``content`` as parsed; of one that other tools wrote, what is where ours has it."""
    content = _table(content)
    made, count = _table(content.get("made")), content.get("num_images")
    sample, origin = _table(made.get("sample")), _table(content.get("origin"))
    return SampleRecord(made, sample, origin, count if isinstance(count, int) else None)


def versions() -> dict[str, str]:
    """Versions of what the pixels of new samples depend on."""
    import diffusers
    import torch

    return {"dmp": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__}


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
