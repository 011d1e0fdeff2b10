"""From the options that records declare to a typer command, and from what was typed to records.

``@takes(TrainConfig, BackboneOptions)`` gives a command the options of these records. It is called with what was
typed, a :class:`Given`, of which it makes the records it needs.

No option has a default of its own for typer: the defaults live in the records, and what was not given is left out.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from ..config import CommonOptions, Frozen, Options, build, default_of, in_words, nearest, options_of
from ..errors import ConfigError
from .completing import offered
from .help import show_all

C = TypeVar("C", bound=Frozen)
Command = Callable[..., None]
_SHORT = 20  # columns of choices that are shown beside the name of an option
_PLAIN = (str, int, float, bool, Path)  # types that typer reads itself; all others are typed as one word


@dataclass(frozen=True)
class Given:
    """What was given to one command, by the name of the option; what was not given is not in it."""

    values: Mapping[str, Any]

    def make(self, record: type[C], **fixed: Any) -> C:
        """The record that the given values make, its defaults for the others. Raises ConfigError; see ``build``."""
        return build(record, **{**{name: self.values[name] for name in self.of(record)}, **fixed})

    def of(self, *records: type[Frozen]) -> list[str]:
        """The options of ``records`` that were given."""
        return [name for record in records for name in record.model_fields if name in self.values]

    def over(self, earlier: Mapping[str, Any]) -> Given:
        """This, and of ``earlier`` what was not given now."""
        return Given({**earlier, **self.values})

    def typed(self, names: Collection[str]) -> dict[str, Any]:
        """What was given of ``names``, in their order, as JSON can hold it."""
        kept = {name: self.values[name] for name in names if name in self.values}
        return {name: _as_typed(value) for name, value in kept.items()}


def _as_typed(value: Any) -> Any:
    """A value as JSON can hold it; an option that was given once as if it could not be given again."""
    if isinstance(value, list):
        several = [_as_typed(one) for one in value]
        return several[0] if len(several) == 1 else several
    return str(value) if isinstance(value, Path) else value


def takes(
    *records: type[Frozen], first: tuple[str, ...] = (), examples: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Command]:
    """Give a command the options of ``records``, and those that every command takes.

    ``first`` names the essential ones, which ``--help`` shows; the others are shown by ``--help-all``.

    The command is called with typer's context, a :class:`Given`, and its own arguments, such as ``arms``.
    """

    def decorate(command: Callable[..., None]) -> Command:
        context, _, *own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [parameter for record in records for parameter in _parameters(record)] + _common_parameters()
        flags = {parameter.name for parameter in parameters if parameter.default is False}

        @functools.wraps(command)
        def typed(ctx: typer.Context, **values: Any) -> None:
            arguments = {parameter.name: values.pop(parameter.name) for parameter in own}
            given = {
                name: value
                for name, value in values.items()
                if value is not None and not (value is False and name in flags)
            }
            command(ctx, Given(given), **arguments)

        # What typer reads of a command: its signature, the types by name, and paragraphs without line breaks.
        typed.__doc__ = "\n\n".join(map(_one_line, inspect.cleandoc(command.__doc__ or "").split("\n\n")))
        typed.__signature__ = inspect.Signature([context, *own, *parameters])  # type: ignore[attr-defined]
        typed.__annotations__ = {p.name: p.annotation for p in [context, *own, *parameters]}
        typed.first, typed.examples = first, examples  # type: ignore[attr-defined]
        return typed

    return decorate


def _one_line(paragraph: str) -> str:
    return " ".join(paragraph.split())


def _parameters(record: type[Frozen], **more: Any) -> Iterator[inspect.Parameter]:
    """The options of a record as parameters of a command."""
    for name, (field, told) in options_of(record).items():
        flags = told["flags"] or [f"--{name.rstrip('_').replace('_', '-')}"]
        kind, is_flag = _kind_of(field), _is_plain_flag(field, flags)
        shown = told["shown"] if told["shown"] is not None else in_words(_default(record, name))
        about = typer.Option(
            *flags,
            help=_help_of(field, kind),
            show_default=False if is_flag else shown,
            metavar=told["metavar"] or _metavar_of(kind, flags[0]),
            rich_help_panel=(record.panel if told["panel"] is None else told["panel"]) or None,
            min=_lowest(field) if issubclass(record, Options) else None,
            parser=told["read"],
            autocompletion=offered(name, record=record.__name__),
            **more.get(name, {}),
        )
        kind = kind if is_flag else kind | None
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if is_flag else None,
            annotation=Annotated[kind, about],
        )


def _common_parameters() -> list[inspect.Parameter]:
    """The options that every command takes; a TOML file and -v work as soon as they are read."""
    from_file = typer.Option(
        "--config",
        help="A TOML file of options, at its top level or in a table named like the command; the command line wins.",
        rich_help_panel=CommonOptions.panel,
        is_eager=True,
        callback=_read_toml,
    )
    config = inspect.Parameter(
        "config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[Path | None, from_file]
    )
    all_of_it = typer.Option(
        "--help-all",
        help="Show all options and exit.",
        rich_help_panel=CommonOptions.panel,
        is_eager=True,
        callback=show_all,
        show_default=False,
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    help_all = inspect.Parameter("help_all", kind, default=False, annotation=Annotated[bool, all_of_it])
    common = list(_parameters(CommonOptions, verbose={"is_eager": True, "callback": _note_verbose}))
    return [*common[:3], config, *common[3:], help_all]


def _default(record: type[Frozen], name: str) -> Any:
    return None if record.model_fields[name].is_required() else default_of(record, name)


def _kind_of(field: FieldInfo) -> Any:
    """The type that typer reads: the field's own, without None, where it is a plain one; else a word, str."""
    kind: Any = field.annotation
    if get_origin(kind) in (Union, types.UnionType):
        inner = [part for part in get_args(kind) if part is not type(None)]
        kind = inner[0] if len(inner) == 1 else str
    if get_origin(kind) is tuple and get_args(kind)[0] is Path:
        return list[Path]  # given again for each further one
    return kind if kind in _PLAIN or get_origin(kind) is Literal else str


def _help_of(field: FieldInfo, kind: Any) -> str:
    """What an option does, with its values where neither that nor the name of the value names them."""
    text, choices = field.description or "", [str(one) for one in get_args(kind)]
    if get_origin(kind) is not Literal or len("|".join(choices)) <= _SHORT or all(one in text for one in choices):
        return text
    return f"{text} One of {', '.join(choices)}."


def _metavar_of(kind: Any, flag: str) -> str:
    """The name of an option's value: its choices where they are short, else what kind of value it is."""
    if get_origin(kind) is Literal:
        joined = "|".join(map(str, get_args(kind)))
        return joined if len(joined) <= _SHORT else flag.lstrip("-").upper()
    kinds: dict[Any, str] = {int: "N", float: "X", Path: "PATH", list[Path]: "PATH"}
    return kinds.get(kind, "TEXT")


def _is_plain_flag(field: FieldInfo, flags: list[str]) -> bool:
    return field.annotation is bool and not any("/" in flag for flag in flags)


def _lowest(field: FieldInfo) -> float | None:
    return next((limit.ge for limit in field.metadata if hasattr(limit, "ge")), None)


def _read_toml(ctx: typer.Context, path: Path | None) -> Path | None:
    """Take options from a TOML file: at its top level, or in a table named like the command."""
    if path is None or ctx.resilient_parsing:
        return path
    from ..storage import read_toml

    text, content = read_toml(path, name=f"--config {path}", regular=False)
    known = {parameter.name for parameter in ctx.command.params}
    own = content.pop(ctx.info_name or "", {})
    _check_tables(ctx, path, text, content)
    flat = {key: value for key, value in content.items() if not isinstance(value, dict)} | own
    # An option whose name is a word of Python, such as --from, is a parameter with an underscore behind it.
    names = {parameter.removesuffix("_"): parameter for parameter in known if parameter}
    values = {names.get(key.replace("-", "_"), key.replace("-", "_")): value for key, value in flat.items()}
    if unknown := sorted(values.keys() - known):
        where = _place(path, text, unknown[0])
        words = [str(name).removesuffix("_").replace("_", "-") for name in known]
        hint = nearest(unknown[0].replace("_", "-"), words, or_all=False)
        raise ConfigError(f"--config {where}: {ctx.info_name} has no option {', '.join(unknown)}", hint=hint)
    again = {parameter.name for parameter in ctx.command.params if getattr(parameter, "multiple", False)}
    values = {name: [value] if name in again and isinstance(value, str) else value for name, value in values.items()}
    ctx.default_map = {**(ctx.default_map or {}), **values}
    return path


def _check_tables(ctx: typer.Context, path: Path, text: str, content: Mapping[str, Any]) -> None:
    """Raise ConfigError for a table that is named like no command: it would be passed over."""
    commands: list[str] = getattr(ctx.find_root().command, "list_commands", lambda ctx: [])(ctx)
    for name, value in content.items():
        if isinstance(value, dict) and commands and name not in commands:
            raise ConfigError(
                f"--config {_place(path, text, name)}: [{name}] is named like no command", hint=nearest(name, commands)
            )


def _place(path: Path, text: str, key: str) -> str:
    """The file, and the line in which ``key`` is given."""
    from ..storage import line_of

    line = line_of(text, key) or line_of(text, key.replace("_", "-"))
    return str(path) if line is None else f"{path}, line {line}"


def _note_verbose(ctx: typer.Context, wanted: bool) -> bool:
    ctx.meta["dmp.verbose"] = wanted
    return wanted
