"""Options that two or more commands share, in groups, and the way from options to a config.

A group is a function whose parameters are its options: ``with_options(everywhere, backbone)`` gives them to a command,
which finds their values in ``ctx.params`` beside its own.

Every option's own default is None: the defaults live in ``config``, and an option that was not given is left out.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ..config import (
    Dtype,
    Frozen,
    GateInput,
    GateKind,
    Init,
    PatchConfig,
    Position,
    ScheduleKind,
    Scope,
    Selection,
    Trainer,
    build,
)
from ..errors import ConfigError

C = TypeVar("C", bound=Frozen)

Command = Callable[..., None]
_BACKBONE, _VARIANT, _EVERYWHERE = "Backbone", "Variant", "Everywhere"


def setting(config: type[Frozen], field: str, help: str, *names: str, panel: str | None = None) -> Any:
    """A typer option for one field of a config; its default is shown, not set."""
    return typer.Option(
        *(names or (f"--{field.replace('_', '-')}",)),
        help=help,
        show_default=_in_words(config.model_fields[field].get_default()),
        rich_help_panel=panel,
    )


def _in_words(default: object) -> str | bool:
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return False if default is None else str(default)


def configure(config: type[C], options: dict[str, Any], **fixed: Any) -> C:
    """The config that the given options make; what was not given takes the config's default."""
    given = {name: options[name] for name in config.model_fields if options.get(name) is not None}
    return build(config, **{**given, **fixed})


def _read_toml(ctx: typer.Context, path: Path | None) -> Path | None:
    """Take options from a TOML file: at its top level, or in a table named like the command."""
    if path is None or ctx.resilient_parsing:
        return path
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read --config {path}: {error.strerror}") from error
    except (ValueError, UnicodeError) as error:
        raise ConfigError(f"--config {path} is not valid TOML: {error}") from error
    known = {parameter.name for parameter in ctx.command.params}
    own = content.pop(ctx.info_name or "", {})
    flat = {key: value for key, value in content.items() if not isinstance(value, dict)} | own
    # An option whose name is a Python keyword, such as --from, is a parameter with an underscore behind it.
    names = {parameter.removesuffix("_"): parameter for parameter in known if parameter}
    values = {names.get(key.replace("-", "_"), key.replace("-", "_")): value for key, value in flat.items()}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ConfigError(f"--config {path}: {ctx.info_name} has no option {', '.join(unknown)}")
    ctx.default_map = {**(ctx.default_map or {}), **values}
    return path


def _note_verbose(ctx: typer.Context, wanted: bool) -> bool:
    ctx.meta["dmp.verbose"] = wanted
    return wanted


def with_options(*groups: Callable[..., None]) -> Callable[[Command], Command]:
    """Give a command the options of ``groups`` after its own."""

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters
        shared = [option for group in groups for option in inspect.signature(group, eval_str=True).parameters.values()]
        options = [*own.values(), *shared]

        @functools.wraps(command)
        def typed(**given: Any) -> None:
            command(**{name: value for name, value in given.items() if name in own})

        # What typer reads of a command: its signature, and the types by name.
        typed.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        typed.__annotations__ = {option.name: option.annotation for option in options}
        return typed

    return decorate


def _option(*names: str, help: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def everywhere(
    device: Annotated[
        str | None, _option("--device", help="auto, cpu, cuda, cuda:N or mps.", panel=_EVERYWHERE, show_default="auto")
    ] = None,
    dtype: Annotated[
        Dtype | None,
        _option("--dtype", help="Precision of matrix products.", panel=_EVERYWHERE, show_default="fp32"),
    ] = None,
    seed: Annotated[
        int | None, _option("--seed", help="Fixes all randomness.", panel=_EVERYWHERE, show_default="0", min=0)
    ] = None,
    config: Annotated[
        Path | None,
        _option(
            "--config",
            help="A TOML file of options; the command line wins.",
            panel=_EVERYWHERE,
            is_eager=True,
            callback=_read_toml,
        ),
    ] = None,
    dry_run: Annotated[
        bool, _option("--dry-run", help="Print the resolved plan and do nothing.", panel=_EVERYWHERE)
    ] = False,
    json: Annotated[
        bool,
        _option("--json", help="The result as one JSON object on stdout, all else on stderr.", panel=_EVERYWHERE),
    ] = False,
    verbose: Annotated[
        bool,
        _option(
            "--verbose", "-v", help="Tracebacks and details.", panel=_EVERYWHERE, is_eager=True, callback=_note_verbose
        ),
    ] = False,
    quiet: Annotated[bool, _option("--quiet", "-q", help="Errors only.", panel=_EVERYWHERE)] = False,
) -> None:
    """What every command takes."""


def backbone(
    backbone: Annotated[
        str | None, _option("--backbone", help="A name (dit-s2 … dit-xl8, digits), path or hub id.", panel=_BACKBONE)
    ] = None,
    checkpoint: Annotated[
        Path | None, _option("--checkpoint", help="Its weights, where the name alone finds none.", panel=_BACKBONE)
    ] = None,
    vae: Annotated[
        str | None,
        _option("--vae", help="The codec: a VAE's folder or hub id, or none for pixel space.", panel=_BACKBONE),
    ] = None,
    download: Annotated[
        bool, _option("--download", help="Allow fetching public weights from the hub.", panel=_BACKBONE)
    ] = False,
) -> None:
    """Which backbone, where a patch does not say it already."""


def backbone_sizes(
    image_size: Annotated[
        int | None, _option("--image-size", help="Side of the images in pixels.", panel=_BACKBONE, min=1)
    ] = None,
    num_classes: Annotated[
        int | None, _option("--num-classes", help="Classes, where the weights leave it open.", panel=_BACKBONE, min=0)
    ] = None,
    num_heads: Annotated[
        int | None, _option("--num-heads", help="Attention heads, for an unusual width.", panel=_BACKBONE, min=1)
    ] = None,
    trained_with: Annotated[
        Trainer | None,
        _option("--trained-with", help="Whose arithmetic a diffusers DiT folder needs.", panel=_BACKBONE),
    ] = None,
    schedule: Annotated[
        ScheduleKind | None, _option("--schedule", help="Of its noise.", panel=_BACKBONE, show_default="linear")
    ] = None,
) -> None:
    """What a weight file may leave open about its backbone."""


def patched(
    patch: Annotated[Path | None, typer.Option("--patch", help="A patch file.")] = None,
    force_backbone: Annotated[
        bool,
        _option("--force-backbone", help="Accept other weights than the patch was trained on.", panel=_BACKBONE),
    ] = False,
) -> None:
    """Which patch, for commands that use a trained one."""


def variant(
    gate: Annotated[GateKind | None, setting(PatchConfig, "gate", "What weighs the prompts.", panel=_VARIANT)] = None,
    scope: Annotated[
        Scope | None, setting(PatchConfig, "scope", "Whether the gate reads the depth.", panel=_VARIANT)
    ] = None,
    selection: Annotated[
        Selection | None, setting(PatchConfig, "selection", "All prompts, or the top k alone.", panel=_VARIANT)
    ] = None,
    top_k: Annotated[
        int | None,
        _option("--top-k", help="Prompts that hard selection keeps.", panel=_VARIANT, show_default="75 % of them"),
    ] = None,
    position: Annotated[
        Position | None, setting(PatchConfig, "position", "On the tokens, or in front of them.", panel=_VARIANT)
    ] = None,
    num_prompts: Annotated[
        int | None,
        _option("--num-prompts", help="Of a block, when prepended.", panel=_VARIANT, show_default="50"),
    ] = None,
    depth: Annotated[
        int | None, setting(PatchConfig, "depth", "Prompts for the first K blocks only.", panel=_VARIANT)
    ] = None,
    gate_input: Annotated[
        GateInput | None,
        setting(PatchConfig, "gate_input", "What the gate reads; conditioning adds the class.", panel=_VARIANT),
    ] = None,
    gate_scale: Annotated[
        float | None, setting(PatchConfig, "gate_scale", "Factor on the gate's weights.", panel=_VARIANT)
    ] = None,
    init: Annotated[Init | None, setting(PatchConfig, "init", "How prompts start.", panel=_VARIANT)] = None,
) -> None:
    """Which mixture of prompts."""


Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
