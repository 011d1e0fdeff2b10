"""What all configs, options and records share: frozen fields, one way to declare an option, one way to build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from ..errors import OptionError

Dtype = Literal["fp32", "bf16", "fp16"]


class Frozen(BaseModel):
    """Base of all configs, options and records: unknown fields are errors, and fields never change once built."""

    # Validators are built at first use, which --help never comes to.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    panel: ClassVar[str | None] = None  # the heading of this record's options in --help


class Growing(Frozen):
    """Base of records that got fields after files of them were written: a later field is None in those files.

    None means the rule of that time. It is not written, so that a record without the field stays as it was.
    """

    later: ClassVar[frozenset[str] | None] = None  # names of these fields; None: all

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        later = serialize(self).keys() if self.later is None else self.later
        return {key: value for key, value in serialize(self).items() if value is not None or key not in later}


if TYPE_CHECKING:  # so that checkers see the fields as arguments, with their types
    from pydantic._internal._model_construction import ModelMetaclass as Spoken
else:

    class Spoken(type(BaseModel)):
        """Of a record that people make by hand: a value that it refuses is one OptionError, not pydantic's own."""

        def __call__(cls, *args, **values):
            try:
                return super().__call__(*args, **values)
            except ValidationError as error:
                raise as_option_error(error) from None


class Options(Frozen, metaclass=Spoken):
    """Base of options that commands alone take. Their ranges are checked as they are typed (exit code 2)."""


C = TypeVar("C", bound=Frozen)


def option(
    help: str,
    *flags: str,
    default: Any = None,
    shown: str | bool | None = None,
    metavar: str | None = None,
    panel: str | None = None,
    read: Callable[[str], Any] | None = None,
    again: bool = False,
    **limits: Any,
) -> Any:
    """A field that is an option of the command line too: its default, range, config key, flags and help in one place.

    Args:
        help: one sentence or two: what the option does, and when one would change it.
        flags: as they are typed; by default ``--name-of-the-field``.
        shown: the default in words, where the value alone says too little; False shows none.
        metavar: the name of the value in --help.
        panel: a heading other than the record's own; empty for none.
        read: makes of the typed word what a file of options would hold; None: typer reads it by its type.
        again: whether the option may be given several times; the field gets the list of what was typed.
        limits: the range, as pydantic's ``Field`` takes it: ``ge``, ``gt``, ``le``, ``lt``.
    """
    extra: dict[str, Any] = {"flags": list(flags), "shown": shown, "metavar": metavar, "panel": panel, "read": read}
    extra |= {"again": True} if again else {}
    return Field(default, description=help, json_schema_extra=extra, **limits)


def same_option(record: type[Frozen], field: str, *flags: str, help: str, shown: str | bool | None = None) -> Any:
    """The option of another record under other words; its default is only shown: that record is asked for it."""
    told = in_words(default_of(record, field)) if shown is None else shown
    return option(help, *flags, shown=told)


def options_of(record: type[Frozen]) -> dict[str, tuple[FieldInfo, Mapping[str, Any]]]:
    """The fields of ``record`` that are options, by name, each with what :func:`option` was told."""
    return {
        name: (field, field.json_schema_extra)
        for name, field in record.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and "flags" in field.json_schema_extra
    }


def default_of(record: type[Frozen], field: str) -> Any:
    """The default of one field."""
    return record.model_fields[field].get_default()


def in_words(default: object) -> str | bool:
    """A default as --help shows it; False shows none."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return False if default is None else str(default)


def build(record: type[C], **values: Any) -> C:
    """Build a record; a value that it refuses becomes one ConfigError that names its option."""
    try:
        return record(**values)
    except ValidationError as error:
        raise as_option_error(error) from error


def as_option_error(error: ValidationError) -> OptionError:
    """What a record has refused, each value by the name of its option."""
    return OptionError("; ".join(_explain(problem) for problem in error.errors()))


def refuse(text: str) -> PydanticCustomError:
    """The error of a validator that says all there is to say, the option's name included."""
    return PydanticCustomError("whole", "{text}", {"text": text})


def _explain(problem: Any) -> str:
    reason = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"] or problem["type"] == "whole":
        return reason
    return f"--{str(problem['loc'][0]).replace('_', '-')} {problem['input']!r}: {reason}"
