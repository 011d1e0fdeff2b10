"""Options that two or more commands share, and the way from options to a config.

Every option's own default is None: the defaults live in ``config``, and an option that was not given is left out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from .. import config as kinds
from ..config import Frozen, PatchConfig, build
from ..errors import ConfigError

C = TypeVar("C", bound=Frozen)

BACKBONE, VARIANT, EVERYWHERE = "Backbone", "Variant", "Everywhere"


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
    values = {key.replace("-", "_"): value for key, value in flat.items()}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ConfigError(f"--config {path}: {ctx.info_name} has no option {', '.join(unknown)}")
    ctx.default_map = {**(ctx.default_map or {}), **values}
    return path


def _note_verbose(ctx: typer.Context, wanted: bool) -> bool:
    ctx.meta["dmp.verbose"] = wanted
    return wanted


def _everywhere(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=EVERYWHERE, **more)


Device = Annotated[str | None, _everywhere("--device", help="auto, cpu, cuda, cuda:N or mps.", show_default="auto")]
Precision = Annotated[
    kinds.Dtype | None, _everywhere("--dtype", help="Precision of matrix products.", show_default="fp32")
]
Seed = Annotated[int | None, _everywhere("--seed", help="Fixes all randomness.", show_default="0")]
ConfigFile = Annotated[
    Path | None,
    _everywhere("--config", help="A TOML file of options; the command line wins.", is_eager=True, callback=_read_toml),
]
DryRun = Annotated[bool, _everywhere("--dry-run", help="Print the resolved plan and do nothing.")]
Json = Annotated[bool, _everywhere("--json", help="The result as one JSON object on stdout, all else on stderr.")]
Verbose = Annotated[
    bool, _everywhere("--verbose", "-v", help="Tracebacks and details.", is_eager=True, callback=_note_verbose)
]
Quiet = Annotated[bool, _everywhere("--quiet", "-q", help="Errors only.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write.")]
PatchFile = Annotated[Path | None, typer.Option("--patch", help="A patch file.")]


def _backbone(*names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=BACKBONE, **more)


BackboneName = Annotated[str | None, _backbone("--backbone", help="A name (dit-s2 … dit-xl8, digits), path or hub id.")]
Checkpoint = Annotated[Path | None, _backbone("--checkpoint", help="Its weights, where the name alone finds none.")]
Vae = Annotated[str | None, _backbone("--vae", help="The codec: a VAE's folder or hub id, or none for pixel space.")]
ImageSize = Annotated[int | None, _backbone("--image-size", help="Side of the images in pixels.", min=1)]
NumClasses = Annotated[int | None, _backbone("--num-classes", help="Classes, where the weights leave it open.")]
NumHeads = Annotated[int | None, _backbone("--num-heads", help="Attention heads, for an unusual width.")]
TrainedWith = Annotated[
    kinds.Trainer | None, _backbone("--trained-with", help="Whose arithmetic a diffusers DiT folder needs.")
]
NoiseSchedule = Annotated[
    kinds.ScheduleKind | None, _backbone("--schedule", help="Of its noise.", show_default="linear")
]
Download = Annotated[bool, _backbone("--download", help="Allow fetching public weights from the hub.")]
ForceBackbone = Annotated[
    bool, _backbone("--force-backbone", help="Accept other weights than the patch was trained on.")
]

Gate = Annotated[kinds.GateKind | None, setting(PatchConfig, "gate", "What weighs the prompts.", panel=VARIANT)]
Scope = Annotated[kinds.Scope | None, setting(PatchConfig, "scope", "Whether the gate reads the depth.", panel=VARIANT)]
Depth = Annotated[int | None, setting(PatchConfig, "depth", "Prompts for the first K blocks only.", panel=VARIANT)]
