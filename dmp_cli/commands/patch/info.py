"""What ``dmp patch`` prints: how large a patch is, as in Table 1, and what a patch file is, in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import PatchConfig, PatchRecord, ScheduleConfig, TunedRecord
from ..console import Printer
from .folding import fold

if TYPE_CHECKING:
    from ...backbones import Backbone
    from ...patching import Patch

_PREDICTED = {"velocity": "velocity", "epsilon": "noise", "score": "score"}  # of a flow


def print_sizes(backbone: Backbone, made: Patch, printer: Printer, *, name: str, path: Path | None) -> None:
    """Table 1's row, and a line per block; equal blocks that follow each other have one."""
    total, own = backbone.num_parameters(), made.num_parameters()
    percent = 100 * own / total
    printer.table(
        "Parameters (paper, Table 1)",
        ["backbone", "parameters", "patch", "per cent"],
        [[name, f"{total:,}", f"{own:,}", f"+{percent:.4f} %"]],
    )
    gate = 0 if made.gate is None else sum(p.numel() for p in made.gate.parameters())
    blocks = backbone.list_blocks()[: len(made.hidden_shapes)]
    shapes = made.hidden_shapes
    rows = fold([_row(made, index, block.name, shapes[index]) for index, block in enumerate(blocks)])
    outputs = f"{made.gate_width} -> {made.gate_outputs}" if gate else ""
    rows.append(["gate, shared" if gate else "no gate", outputs, f"{gate:,}"])
    printer.table("", ["block", made.config.experts or "prompts", "parameters"], rows)
    if path is not None:
        printer.say(f"wrote {path}")
    printer.result(
        {
            "backbone": name,
            "backbone_parameters": total,
            "patch_parameters": own,
            "per_cent": percent,
            "gate_parameters": gate,
            "blocks": [
                {"name": b.name, "hidden_shape": list(b.hidden_shape), "prompts": list(shape)}
                for b, shape in zip(blocks, shapes, strict=True)
            ],
            "output": path and str(path),
        }
    )


def _row(made: Patch, index: int, name: str, shape: tuple[int, ...]) -> list[str]:
    """The prompts and the experts of one block, and how many parameters they have."""
    parts, learnt = [], 0
    if made.num_prompts:
        parts.append(" x ".join(map(str, shape)))
        learnt += made.prompts[index].numel()
    if made.num_experts:
        layers = len(made.expert_layers[index])
        parts.append(f"{made.num_experts} experts of rank {made.config.rank} in {layers} layers")
        learnt += sum(p.numel() for p in made.experts[index].parameters())
    return [name, ", ".join(parts), f"{learnt:,}"]


def print_info(path: Path, printer: Printer) -> None:
    """The header of a file of a patch or of tuned weights in words, or as JSON.

    Raises:
        PatchError, CheckpointError: a damaged file.
    """
    from ...patching import is_tuned, read_record, read_tuned

    if is_tuned(path):
        tuned, count = read_tuned(path)
        for line in describe_tuned(tuned, count):
            printer.say(line)
        printer.result({**tuned.model_dump(mode="json"), "parameters": count})
        return
    record = read_record(path)
    for line in describe(record):
        printer.say(line)
    printer.result(record.model_dump(mode="json"))


def describe_tuned(record: TunedRecord, count: int) -> list[str]:
    """The header of a file of tuned weights in words; ``count`` is how many numbers it holds."""
    training = "none yet: it changes nothing" if record.training is None else _describe_run(_Told(record.training))
    return [
        f"tuned      {record.method}, {count:,} weights in place of the backbone's own",
        *_describe_place(record),
        f"training   {training}",
        f"format     version {record.format_version}",
    ]


def _describe_place(record: PatchRecord | TunedRecord) -> list[str]:
    """The backbone it belongs to, and its images."""
    backbone = record.backbone
    return [
        f"backbone   {backbone.name or backbone.family} from {backbone.source}",
        f"           digest {backbone.digest}",
        *_describe_images(record),
    ]


def _describe_images(record: PatchRecord | TunedRecord) -> list[str]:
    about = record.backbone.by_hand
    if about is None:
        return [f"images     {record.image_size} px, codec {record.codec.source or 'none (pixel space)'}"]
    lists = [f"{name} ({about.image_at[name]})" if name in about.image_at else name for name in about.block_lists]
    return [f"by hand    blocks {', '.join(lists)}; the gate reads {about.timestep_module}"]


def describe(record: PatchRecord) -> list[str]:
    """A patch's header in words."""
    count = len(record.hidden_shapes)
    return [
        f"patch      {_describe_variant(record.config)}; {count} blocks, {_describe_learnt(record)}",
        *_describe_place(record),
        *([] if record.backbone.by_hand else [f"schedule   {_describe_schedule(record.schedule)}"]),
        f"training   {_describe_training(record.training)}",
        f"format     version {record.format_version}",
    ]


def _describe_schedule(schedule: ScheduleConfig) -> str:
    if schedule.flow is None:
        end = ", the last one pure noise" if schedule.zero_terminal_snr else ""
        return f"{schedule.kind}, {schedule.num_timesteps} timesteps{end}"
    if schedule.flow == "rectified":
        return "rectified flow, which predicts the velocity"
    return f"{schedule.kind} flow of {schedule.flow}, which predicts the {_PREDICTED[schedule.prediction]}"


def _describe_learnt(record: PatchRecord) -> str:
    config, parts = record.config, []
    if config.has_prompts:
        size = " x ".join(map(str, record.hidden_shapes[0])) if record.hidden_shapes else "0"
        parts.append(f"prompts of {size}")
    if record.expert_layers:
        names = ", ".join(dict.fromkeys(layer.name for block in record.expert_layers for layer in block))
        parts.append(f"{config.experts_per_block} experts of rank {config.rank} in {names}")
    return " and ".join(parts)


def _describe_variant(config: PatchConfig) -> str:
    gates = {
        "linear": "linear gate",
        "attention": "attention gate",
        "constant": "constant gate 1/N",
        "none": "no gate" if config.experts else "no gate (prompt tuning)",
    }
    parts = [gates[config.gate]]
    if config.gate in ("linear", "attention"):
        parts += [f"{config.scope} scope", f"reads the {config.gate_input}", f"{config.selection} selection"]
    parts += ["prepended"] if config.position == "prepend" else []
    parts += [f"top {config.top_k}"] if config.top_k else []
    parts += [f"scale {config.gate_scale:g}"] if config.gate_scale != 1 else []
    parts += ["random init"] if config.init == "random" else []
    return ", ".join(parts)


class _Told(dict[str, Any]):
    """A record of a training in which what it does not say is unknown: anybody can have written it."""

    def __missing__(self, key: str) -> str:
        return "unknown"


def _describe_training(training: dict[str, Any] | None) -> str:
    if training is None:
        return "none yet: it changes nothing"
    told = _Told(training)
    if "imported_from" in training:  # what was not recorded there is not known here
        return "{method}, imported from {imported_from}; w_noise {w_noise}".format_map(told)
    return _describe_run(told, rates="lr {lr}, gate lr {gate_lr}")


def _describe_run(told: _Told, *, rates: str = "lr {lr}") -> str:
    averaged = f", averaged with decay {told['average']}" if "average" in told else ""
    run = "{method}, {steps_done} steps of {batch_size} images from {data} ({num_images} images), "
    drawn = told.get("drawn_levels")
    levels = f", levels {drawn.get('kind')} (shift {drawn.get('shift')})" if isinstance(drawn, dict) else ""
    weighted = f", loss weight {told['loss_weight']}" if "loss_weight" in told else ""
    few = f", on weights in {told['quantize']}" if "quantize" in told else ""
    return f"{run}{rates}, seed {{seed}}".format_map(told) + levels + weighted + few + averaged
