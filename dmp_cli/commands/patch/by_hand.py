"""``dmp patch --block-lists``: a patch of a model that no family names."""

from __future__ import annotations

import contextlib
from typing import Any

from ...config import (
    ByHandOptions,
    CodecOptions,
    CommonOptions,
    MemoryOptions,
    NetworkOptions,
    PatchConfig,
    PatchOptions,
    Sides,
    SizeOptions,
)
from ...errors import ConfigError
from ..console import Printer
from ..options import Given
from ..plans import planning
from .info import print_sizes
from .plan import show_new_patch

_TAKEN = {"backbone", "checkpoint", "download"}  # of what says which network it is
_OUTPUT = {"output", "force"}


def make_by_hand(given: Given, asked: ByHandOptions, printer: Printer, common: CommonOptions) -> None:
    """Say what the blocks of the model are given in a dry forward, and write a zero patch to -o if it is given.

    Raises:
        ConfigError: an option that does not go with a model by hand, or a variant that is impossible on it.
        CheckpointError: the model cannot be read, or what a dry forward shows fits no patch.
    """
    kept = _TAKEN | _OUTPUT | {*ByHandOptions.model_fields}
    others = given.of(PatchOptions, MemoryOptions, NetworkOptions, CodecOptions, SizeOptions)
    if refused := [name for name in others if name not in kept]:
        raise ConfigError(f"--{refused[0].rstrip('_').replace('_', '-')} does not go with --block-lists")
    options, network = given.make(PatchOptions), given.make(NetworkOptions)
    if network.name is None:
        raise ConfigError("no backbone given", hint="Name the model's folder with --backbone.")
    assert asked.block_lists is not None
    from ...backbones import load_by_hand
    from ...config import CodecRecord
    from ...patching import create_patch, save_patch
    from ...storage import refuse_existing

    output = options.output
    plan = {"backbone": network.name, "block_lists": list(asked.block_lists), "output": output and str(output)}
    with planning(plan, printer) if common.dry_run else contextlib.nullcontext():
        if output is not None:
            refuse_existing(output, force=options.force)
        backbone = load_by_hand(
            network.name,
            block_lists=asked.block_lists,
            timestep_module=asked.timestep_module,
            image_at=asked.image_at,
            inputs=asked.inputs,
            checkpoint=network.checkpoint,
            download=network.download,
        )
        size = Sides(*backbone.sample_shape[1:]).written
        how: dict[str, Any] = {"codec": CodecRecord(), "image_size": size, "seed": common.seed or 0}
        made = create_patch(backbone, given.make(PatchConfig), **how)
    if common.dry_run:
        show_new_patch(plan, made, backbone, printer, output=output)
        return
    for remark in backbone.remarks:
        printer.note(remark)
    assert backbone.record is not None
    about = backbone.record.by_hand
    assert about is not None
    told = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in about.inputs.items())
    printer.say(f"a dry forward with {told}: the gate reads {about.gate_width} numbers of {about.timestep_module}")
    if output is not None:
        save_patch(output, made)
    print_sizes(backbone, made, printer, name=network.name, path=output)
