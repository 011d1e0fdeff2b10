"""``dmp sample``: numbered images from a patched or bare backbone, always the same ones for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from ...config import (
    BackboneOptions,
    CodecOptions,
    CommonOptions,
    MeasureOptions,
    NetworkOptions,
    PlanLine,
    Prompt,
    SampleConfig,
    SampleOptions,
    SamplingMemory,
    SizeOptions,
    SummedPatches,
    TextStoreOptions,
)
from ...errors import ConfigError
from ..console import Printer
from ..named_patches import found_here, other_version_here
from ..options import Given, takes
from .job import Request, run_sample
from .own_sampler import check_early, peek
from .patches import read_patches
from .verification import run_verify


@takes(
    SummedPatches,
    SampleConfig,
    SampleOptions,
    SamplingMemory,
    MeasureOptions,
    TextStoreOptions,
    BackboneOptions,
    CodecOptions,
    SizeOptions,
    first=(
        "patch",
        "num_images",
        "output",
        "no_patch",
        "strength",
        "sampler",
        "steps",
        "guidance",
        "classes",
        "prompts",
    ),
    examples=(
        "dmp sample --patch run/patch.safetensors -n 1000",
        "dmp sample --patch run/patch.safetensors --no-patch -n 1000 -o samples/bare",
    ),
)
def sample(ctx: typer.Context, given: Given) -> None:
    """Draw images from a patched or bare backbone. The same seed gives the same images, whatever the number.

    Run it again to continue, or with a larger -n to draw more: what is there stays as it is.
    """
    given = other_version_here(found_here(given, "patch"))
    common, asked, named = given.make(CommonOptions), given.make(SampleOptions), given.make(SummedPatches)
    printer, network = Printer(common), given.make(NetworkOptions)
    _check_together(given, asked, named)
    patches = read_patches(named.patch, strength=given.values.get("strength"))
    first = patches[0] if patches else None
    said, lines = _read_prompts(asked.prompt, asked.prompts), _read_plan(asked.plan)
    told: dict[str, Any] = {"plan": None, **_named_prompts(said)}
    if "num_images" not in given.values and (said or lines):
        told["num_images"] = len(said or lines or ())
    if len(patches) == 1:
        told["strength"] = patches[0].strength
    config = given.make(SampleConfig, **told)
    source = None if first is None else first.path
    folder = asked.output or _default_output(source or asked.adapter, network.name, bare=asked.no_patch)
    if asked.verify and (asked.output or source or asked.adapter or network.name):
        run_verify(folder, given.values.get("num_images"), printer)
        return
    if first is None and network.name is None:
        if asked.adapter is not None:
            raise ConfigError("no backbone given for --adapter", hint="Name the one it was trained on with --backbone.")
        raise ConfigError("nothing to sample", hint="Give a patch with --patch, or a bare backbone with --backbone.")
    peeked = peek(network, source)
    check_early(config, peeked)
    texts, force, memory = given.make(TextStoreOptions), named.force_backbone, given.make(SamplingMemory)
    request = Request(folder, config, lines, said, asked, texts, memory, patches, force, network, common.device, given)
    if common.dry_run:
        _plan(request, printer, measure=given.make(MeasureOptions).measure)
    else:
        run_sample(request, printer)


def _plan(request: Request, printer: Printer, *, measure: bool) -> None:
    """Show what the command would draw; as JSON with all options as they were understood."""
    from .plan import plan_samples

    first = request.patches[0].path if request.patches else None
    shown = {"patch": first, "adapter": request.options.adapter, "output": request.folder}
    resolved: dict[str, Any] = {"sample": request.config.model_dump(mode="json")}
    resolved |= {key: value and str(value) for key, value in shown.items()}
    resolved |= {"backbone": request.network.name, "no_patch": request.options.no_patch}
    if len(request.patches) > 1:
        resolved["patch"] = {str(share.path): share.strength for share in request.patches}
    plan_samples(request, resolved, printer, measure=measure)


def _check_together(given: Given, asked: SampleOptions, named: SummedPatches) -> None:
    """Raise ConfigError for options that do not go together."""
    if asked.plan is not None and "balanced" in given.values:
        raise ConfigError("--balanced is about classes taken in turn; a --plan says the class of each image")
    if asked.plan is not None and (asked.prompt or asked.prompts or "classes" in given.values):
        raise ConfigError("--plan says classes and prompts itself: leave out --classes, --prompt and --prompts")
    if asked.prompt is not None and asked.prompts is not None:
        raise ConfigError("--prompt and --prompts are two sources of text; give one")
    if asked.against is None and {"against_scale", "against_interval"} & given.values.keys():
        raise ConfigError("--against-scale and --against-interval are for --against, which names the other version")
    if asked.shard != (0, 1) and asked.force:
        raise ConfigError("--force with --shard: each part would remove what the others have drawn")
    if given.values.get("offload_blocks") and given.values.get("compile"):
        raise ConfigError("--offload-blocks and --compile do not go together")
    if asked.adapter is not None and (named.patch or asked.no_patch or "strength" in given.values):
        raise ConfigError("--adapter goes without a patch: leave out --patch, --no-patch and --strength")


def _read_plan(path: Path | None) -> Sequence[PlanLine] | None:
    if path is None:
        return None
    from ...sampling import read_plan

    return read_plan(path)


def _named_prompts(prompts: Sequence[Prompt] | None) -> dict[str, Any]:
    """The fields of a config that say which prompts there are: a few as they are, many by their digest."""
    if prompts is None or isinstance(prompts, tuple):
        return {"prompts": prompts}
    from ...sampling import digest_of

    return {"prompts": None, "prompt_file": digest_of(prompts)}


def _read_prompts(text: str | None, path: Path | None) -> Sequence[Prompt] | None:
    if path is not None:
        from ...sampling import read_prompts

        return read_prompts(path)
    return None if text is None else (Prompt(text=text),)


def _default_output(patch: Path | None, backbone: str | None, *, bare: bool) -> Path:
    from ...hub import short_name

    name = short_name(patch) if patch is not None else Path(str(backbone)).stem
    return Path("samples") / (f"{name}-bare" if bare and patch is not None else name)
