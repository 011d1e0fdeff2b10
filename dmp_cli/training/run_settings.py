"""``config.json`` of a run: the options given, and what they came to. It is read with all its types checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..config import Dtype, Frozen, PatchConfig, TrainConfig, build
from ..errors import ConfigError
from ..storage import check_types, read_object

_DAMAGED = "Copy the file again, or replace the run with --force."


class _Images(BaseModel):
    """What a run records of its images."""

    fingerprint: str | None = None
    count: int | None = None
    rules: int = 1
    classes: list[str] | None = None


class _RunSettings(BaseModel):
    """The parts of the file that are read again; a part that an early version did not write is absent."""

    model_config = ConfigDict(extra="allow", strict=True)

    options: dict[str, Any] = {}
    train: dict[str, Any] = {}
    patch: dict[str, Any] | None = None
    backbone: dict[str, Any] | None = None
    codec: dict[str, Any] | None = None
    images: _Images | None = None
    held_out: _Images | None = None
    text_store: Dtype | None = None  # the precision of the text store; None: there is none


def read_run_settings(path: Path) -> dict[str, Any] | None:
    """The content of the ``config.json`` at ``path``; None: there is no such file.

    Raises:
        ConfigError: it is not valid JSON, or not as a run writes it.
    """
    if not path.exists():
        return None
    settings = read_object(path, paths=True)
    check_types(_RunSettings, settings, name=str(path), kind=ConfigError, hint=_DAMAGED)
    return settings


def with_defaults(settings: dict[str, Any], *, source: Path) -> dict[str, Any]:
    """The settings of a run; options that did not exist when it was started get their default values.

    Raises:
        ConfigError: ``source``, the file they come from, holds a value that no run can have.
    """
    configs: dict[str, type[Frozen]] = {"train": TrainConfig, "patch": PatchConfig}
    filled = {}
    for key, config in configs.items():
        if isinstance(settings.get(key), dict):
            try:
                filled[key] = build(config, **settings[key]).model_dump(mode="json")
            except ConfigError as error:
                raise ConfigError(f"{source} is not as it must be: {error.message}", hint=_DAMAGED) from error
    return {**settings, **filled}


def as_recorded_codec(codec: Any, before: Any) -> Any:
    """``codec`` as the run's version of dmp recorded it: the first ones knew nothing of a VAE's config."""
    if isinstance(codec, dict) and isinstance(before, dict) and "settings" not in before:
        return {key: value for key, value in codec.items() if key != "settings"}
    return codec
