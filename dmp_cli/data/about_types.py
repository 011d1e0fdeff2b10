"""The types of what samples.json may say, wherever it comes from: checked before anything is computed from it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from ..config import ImageSize
from ..errors import DMPError
from ..storage import check_types

_Index = Annotated[int, Field(ge=0, lt=1 << 40)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    """A table of the file; what is not listed here is never read."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Sample(_Part):
    seed: int | None = None
    steps: _Index | None = None
    sampler: str | None = None
    guidance: _Number | None = None
    guidance_channels: str | None = None
    guidance_interval: list[_Number] | None = Field(None, min_length=2, max_length=2)
    against_scale: _Number | None = None
    against_interval: list[_Number] | None = Field(None, min_length=2, max_length=2)
    batch_size: Annotated[int, Field(ge=1, lt=1 << 40)] | None = None
    plan: str | None = None
    classes: list[int] | None = None
    prompts: list[Any] | None = None
    prompt_file: str | None = None
    balanced: bool | None = None
    compile: bool | None = None
    dtype: str | None = None


class _Codec(_Part):
    digest: str | None = None


class _Made(_Part):
    sample: _Sample = _Sample()
    patch: str | list[list[str | _Number]] | None = None
    adapter: str | None = None
    against: str | None = None
    latents: str | None = None  # type of the values of kept latents; None: they are not kept
    codec: _Codec | None = None
    image_size: ImageSize | None = None
    schedule: dict[str, Any] | None = None


class _Trained(_Part):
    steps: _Index
    training: str
    name: str


class _Origin(_Part):
    given: dict[str, Any] | None = None
    trained: _Trained | None = None
    backbone: str | None = None
    codec: str | None = None
    device: str | None = None
    versions: dict[str, str] | None = None
    classes: list[str] | None = None


class _About(_Part):
    num_images: _Index | None = None
    made: _Made = _Made()
    origin: _Origin = _Origin()


def is_ours(content: Any) -> bool:
    """Whether the content of a samples.json has the structure that this tool gives it; others write such files too."""
    return isinstance(content, dict) and isinstance(content.get("made"), dict)


def check_about(content: dict[str, Any], *, name: str, kind: type[DMPError], hint: str) -> None:
    """Raise ``kind``, which names the field, where the samples.json called ``name`` says what none of ours can."""
    check_types(_About, content, name=name, kind=kind, hint=hint)
