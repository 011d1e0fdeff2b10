"""``dmp eval``: score folders of samples against a folder of images or saved statistics."""

from __future__ import annotations

import typer

from ..config import (
    BackboneOptions,
    CodecOptions,
    CommonOptions,
    EvalConfig,
    EvalOptions,
    LossOptions,
    SizeOptions,
)
from ..errors import ConfigError
from .console import Printer
from .evaluate_plan import plan_scores
from .options import Given, takes
from .processes import owning


@takes(
    EvalConfig,
    EvalOptions,
    LossOptions,
    BackboneOptions,
    CodecOptions,
    SizeOptions,
    first=(
        "samples",
        "reference",
        "output",
        "metrics",
        "features",
        "inception_weights",
        "gates",
        "loss",
        "val_data",
        "patch",
    ),
    examples=(
        "dmp eval --samples samples/bare --samples samples/patch --reference ffhq/",
        "dmp eval --loss --patch run/patch.safetensors --val-data held-out/",
    ),
)
def evaluate(ctx: typer.Context, given: Given) -> None:
    """Score folders of samples against real images: FID and other metrics, each with its spread.

    The first folder is the base that the others are compared with. With --loss, measure the loss of patches on held-out
    images instead.
    """
    common, asked = given.make(CommonOptions), given.make(EvalOptions)
    printer = Printer(common)
    if given.make(LossOptions).loss:
        from .held_out_loss import measure_loss

        measure_loss(given, common, asked, printer)
        return
    if of_loss := given.of(LossOptions, BackboneOptions, CodecOptions, SizeOptions):
        raise ConfigError(f"--{of_loss[0].replace('_', '-')} goes with --loss only")
    if not {"samples", "reference"} <= set(given.of(EvalConfig)):
        raise ConfigError(
            "nothing to score", hint="Give --samples DIR (once or more) and --reference DIR or STATS.npz."
        )
    if common.dtype not in (None, "fp32"):
        raise ConfigError(f"--dtype {common.dtype}: scores are computed in fp32, so that they can be compared")
    config = given.make(EvalConfig)
    if common.dry_run:
        plan_scores(config, asked, common, printer)
        return
    from ..runtime import refuse_many

    refuse_many("dmp eval")
    with owning(asked.output, "dmp eval"):
        _score(config, asked, common, printer)


def _score(config: EvalConfig, asked: EvalOptions, common: CommonOptions, printer: Printer) -> None:
    from ..evaluation import build_score_page, evaluate as score, gates_sections, render_scores, score_table
    from ..report import render
    from ..runtime import explaining_memory, pick_device
    from ..storage import refuse_existing, write_json, write_text

    folder = asked.output
    refuse_existing(folder / "report.json", force=asked.force)
    gates = gates_sections(asked.gates) if asked.gates else []
    smaller = f"Give --batch-size {config.batch_size // 2}." if config.batch_size > 1 else "Give another --device."
    memory = explaining_memory(f"with {config.batch_size} images in the network at once", smaller)
    with memory, printer.watching():
        evaluation = score(config, device=str(pick_device(common.device or "auto")), log=printer.note)
    report = evaluation.to_json()
    write_text(folder / "report.md", render_scores(evaluation))
    write_text(folder / "report.html", render(build_score_page(evaluation, config, gates=gates)))
    write_json(folder / "report.json", report)  # written last: where it is, the others are too
    columns, rows = score_table(evaluation)
    printer.table(f"Scores against {config.reference}", columns, rows)
    for warning in evaluation.warnings:
        printer.warn(warning)
    printer.say(f"wrote {folder / 'report.html'}, report.md and report.json")
    printer.result(report)
