"""What all configs and records share: fields that never change, and one way to build them."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import ConfigError

Dtype = Literal["fp32", "bf16", "fp16"]


class Frozen(BaseModel):
    """Base of all configs and records: unknown fields are errors, fields never change after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


C = TypeVar("C", bound=Frozen)


def build(config: type[C], **options: Any) -> C:
    """Construct a config from options; a value out of range becomes one ConfigError that names its option."""
    try:
        return config(**options)
    except ValidationError as error:
        raise ConfigError("; ".join(_in_words(problem) for problem in error.errors())) from error


def _in_words(problem: Any) -> str:
    option = "--" + str(problem["loc"][0]).replace("_", "-") if problem["loc"] else ""
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{option} {problem['input']!r}: {reason}" if option else reason
