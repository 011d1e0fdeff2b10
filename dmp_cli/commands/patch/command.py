"""``dmp patch``: make a zero patch, import one, bake one, print Table 1's row, or say what a patch file is."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ...config import (
    BackboneOptions,
    ByHandOptions,
    CodecOptions,
    CommonOptions,
    MemoryOptions,
    NetworkOptions,
    PatchConfig,
    PatchOptions,
    SampleConfig,
    Sides,
    SizeOptions,
    sides_of,
)
from ...errors import ConfigError
from ..console import Printer
from ..named_patches import found_here
from ..options import Given, takes
from ..plans import planning
from .by_hand import make_by_hand
from .info import print_info, print_sizes
from .memory import print_memory
from .plan import show_new_patch, show_table

if TYPE_CHECKING:
    from ...backbones import Backbone
    from ...patching import Patch


@takes(
    PatchOptions,
    MemoryOptions,
    PatchConfig,
    BackboneOptions,
    CodecOptions,
    SizeOptions,
    ByHandOptions,
    first=("backbone", "output", "gate", "experts", "prompt_grid", "depth", "info", "from_", "export", "memory"),
    examples=(
        "dmp patch --backbone dit-l2",
        "dmp patch --backbone stable-diffusion-3-medium/ -o new.safetensors",
    ),
)
def patch(ctx: typer.Context, given: Given) -> None:
    """Make a zero patch, which changes nothing until it is trained, and print how large it is.

    A patch is a pool of prompts for every block of a backbone, and the gate that weighs them by the timestep. Without
    -o only the sizes are printed, and then no weights are needed for a name such as dit-l2. With --from the patch is
    that of a checkpoint of the paper's authors, whose backbone is the one in the same file.
    """
    given = found_here(given, "info", "export")
    common, asked = given.make(CommonOptions), given.make(PatchOptions)
    printer, network = Printer(common), given.make(NetworkOptions)
    if (by_hand := given.make(ByHandOptions)).block_lists is not None:
        make_by_hand(given, by_hand, printer, common)
    elif (counting := given.make(MemoryOptions)).memory:
        if others := [name for name in ("output", "info", "from_", "export") if getattr(asked, name) is not None]:
            raise ConfigError(f"--memory counts and does nothing else; leave out --{others[0].rstrip('_')}")
        print_memory(counting, given.make(PatchConfig), network, common, printer)
    elif asked.info is not None:
        print_info(asked.info, printer)
    elif asked.from_ is not None:
        if variant := given.of(PatchConfig):
            options = ", ".join(f"--{name.replace('_', '-')}" for name in variant)
            raise ConfigError(f"--from takes the variant from the file; leave out {options}")
        _import(asked.from_, asked, network, common, printer)
    elif asked.export is not None:
        _export(asked.export, asked, given.make(SampleConfig), network, common, printer)
    else:
        _make(given.make(PatchConfig), asked, network, common, printer)


def _make(
    config: PatchConfig, asked: PatchOptions, network: NetworkOptions, common: CommonOptions, printer: Printer
) -> None:
    """Write a zero patch to -o and print its sizes; without -o only print them."""
    output = asked.output
    plan = {"patch": config.model_dump(), "backbone": network.backbone, "output": output and str(output)}
    with planning(plan, printer) if common.dry_run else contextlib.nullcontext():
        made, backbone = _count(config, network) if output is None else _create(config, asked, network, common)
    if common.dry_run:
        show_new_patch(plan, made, backbone, printer, output=output)
    elif output is None:
        print_sizes(backbone, made, printer, name=str(network.name), path=None)
    else:
        _write(output, made, backbone, printer, name=str(network.name))


def _create(
    config: PatchConfig, asked: PatchOptions, network: NetworkOptions, common: CommonOptions
) -> tuple[Patch, Backbone]:
    """A zero patch for the backbone, which is loaded."""
    from ...latents import image_size
    from ...patching import create_patch
    from ...pipeline import check_early, load_bare
    from ...runtime import pick_device
    from ...storage import refuse_existing

    assert asked.output is not None
    refuse_existing(asked.output, force=asked.force)
    check_early(network, config)
    loaded = load_bare(network, pick_device(common.device or "cpu"))
    size, codec = image_size(loaded.codec, loaded.backbone), loaded.codec.record
    made = create_patch(loaded.backbone, config, codec=codec, image_size=size, seed=common.seed or 0)
    return made, loaded.backbone


def _import(
    source: Path, asked: PatchOptions, network: NetworkOptions, common: CommonOptions, printer: Printer
) -> None:
    """Write the patch in the authors' checkpoint ``source``; its backbone is the one in the same file."""
    output = asked.output
    if output is None:
        raise ConfigError("--from writes a patch, and there is no place for it", hint="Name one with -o.")
    if network.name is None:
        network = network.model_copy(update={"backbone": str(source)})
    from ...latents import image_size
    from ...patching import import_patch, read_authors
    from ...pipeline import load_bare
    from ...runtime import pick_device
    from ...storage import refuse_existing

    plan = {"from": str(source), "backbone": network.name, "output": str(output)}
    with planning(plan, printer) if common.dry_run else contextlib.nullcontext():
        refuse_existing(output, force=asked.force)
        read_authors(source)  # says what a wrong file lacks, before its tensors are held against a backbone's
        loaded = load_bare(network, pick_device(common.device or "cpu"))
        size = image_size(loaded.codec, loaded.backbone)
        made = import_patch(source, loaded.backbone, codec=loaded.codec.record, image_size=size)
    if common.dry_run:
        show_new_patch(plan, made, loaded.backbone, printer, output=output)
        return
    _write(output, made, loaded.backbone, printer, name=str(network.name))


def _write(output: Path, made: Patch, backbone: Backbone, printer: Printer, *, name: str) -> None:
    """Write the patch ``made`` for ``backbone``, and print its sizes."""
    from ...patching import save_patch

    save_patch(output, made)
    for remark in backbone.remarks:
        printer.note(remark)
    print_sizes(backbone, made, printer, name=name, path=output)


def _export(
    source: Path,
    asked: PatchOptions,
    wanted: SampleConfig,
    network: NetworkOptions,
    common: CommonOptions,
    printer: Printer,
) -> None:
    """Bake the patch in ``source`` into a table for the timesteps of --sampler and --steps."""
    output = asked.output or _beside(source)
    from ...patching import bake_table, describe_table, save_table
    from ...pipeline import load_patched
    from ...runtime import pick_device
    from ...sampling import visited_timesteps
    from ...storage import refuse_existing, sha256_of

    plan = {"export": str(source), "sampler": wanted.sampler, "steps": wanted.steps, "dense": asked.dense}
    plan["output"] = str(output)
    with planning(plan, printer) if common.dry_run else contextlib.nullcontext():
        refuse_existing(output, force=asked.force)
        loaded = load_patched(source, network, pick_device(common.device or "cpu"))
        wanted, timesteps = visited_timesteps(wanted, loaded.backbone)
        tensors = bake_table(loaded.denoiser, timesteps, dense=asked.dense)  # type: ignore[arg-type]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if common.dry_run:
        plan |= {"sampler": wanted.sampler, "steps": wanted.steps}
        blocks = len(loaded.record.hidden_shapes) if loaded.record is not None else 0
        show_table(plan, len(timesteps), blocks, printer, output=output, size=size)
        return
    how: dict[str, Any] = {"digest": sha256_of(source), "dense": asked.dense}
    record = describe_table(loaded.denoiser, timesteps, **how)  # type: ignore[arg-type]
    digest = save_table(output, tensors, record)
    told = f"{len(timesteps)} timesteps of {wanted.sampler}, {len(record.blocks)} blocks, {size / 1e6:.1f} MB"
    printer.say(f"wrote {output}: {told}")
    printer.result({"output": str(output), "timesteps": timesteps, "blocks": list(record.blocks), "sha256": digest})


def _beside(patch: Path) -> Path:
    """Where the table of a patch goes by default: beside it, or here for one of the hub's cache."""
    from ...hub import pinned_name, short_name

    suffix = ".table.safetensors"
    return patch.with_suffix(suffix) if pinned_name(patch) is None else Path(short_name(patch) + suffix)


def _count(config: PatchConfig, network: NetworkOptions) -> tuple[Patch, Backbone]:
    """A patch that is not written, to be counted; a name alone needs no weights."""
    from ...backbones import build_backbone, is_size_name
    from ...config import CodecRecord
    from ...patching import create_patch
    from ...pipeline import load_bare

    name = network.backbone
    if name is not None and network.checkpoint is None and is_size_name(name):
        factor, size = 1 if network.vae == "none" else 8, network.image_size
        input_size = None if size is None else sides_of(size).over(factor).written
        backbone = build_backbone(name, num_classes=network.num_classes, input_size=input_size)
    else:
        pixels = network.model_copy(update={"vae": "none"}) if name == "digits" else network
        backbone = load_bare(pixels, "cpu").backbone
    size = Sides(*backbone.sample_shape[1:]).written
    return create_patch(backbone, config, codec=CodecRecord(), image_size=size), backbone
