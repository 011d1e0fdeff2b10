"""``dmp eval``: score folders of samples against a folder of images or saved statistics."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

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
from .evaluate_plan import plan_scores, processes_of
from .options import Given, takes
from .processes import owning, together

if TYPE_CHECKING:
    from ..evaluation import Evaluation
    from ..report import Section
    from ..runtime import World

_FEATURES = "features"  # in the report's folder, while they are computed


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
        if asked.jobs > 1:
            raise ConfigError(
                f"--jobs {asked.jobs} is for scores",
                hint="Several processes that torchrun starts share the draws of a loss.",
            )
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
    with together(common.device, printer) as (world, device), owning(asked.output, "dmp eval", world):
        processes_of(asked, world)
        _score(config, asked, world, str(device), printer)


def _score(config: EvalConfig, asked: EvalOptions, world: World, device: str, printer: Printer) -> None:
    from ..evaluation import gates_sections
    from ..runtime import explaining_memory
    from ..storage import refuse_existing

    folder = asked.output
    gates: list[Section] = []

    def begin() -> None:
        refuse_existing(folder / "report.json", force=asked.force)
        gates.extend(gates_sections(asked.gates) if asked.gates else [])
        (folder / _FEATURES / "failed").unlink(missing_ok=True)  # of an earlier call

    world.tell(begin)
    smaller = f"Give --batch-size {config.batch_size // 2}." if config.batch_size > 1 else "Give another --device."
    memory = explaining_memory(f"with {config.batch_size} images in the network at once", smaller)
    with memory, printer.watching():
        evaluation = _measure(config, asked, world, device, printer)
    if evaluation is not None:
        _write(evaluation, config, folder, gates, printer)
        shutil.rmtree(folder / _FEATURES, ignore_errors=True)  # what an interrupted call would go on from


def _measure(config: EvalConfig, asked: EvalOptions, world: World, device: str, printer: Printer) -> Evaluation | None:
    """The scores; None in all processes but the first."""
    from ..evaluation import Crew, evaluate_together, helping

    kept = asked.output / _FEATURES
    if asked.jobs == 1:
        return evaluate_together(config, Crew(kept, world=world), device=device, log=printer.note)
    with helping(config, kept, device=device, jobs=asked.jobs) as helpers:
        return evaluate_together(config, Crew(kept, helpers=helpers), device=device, log=printer.note)


def _write(evaluation: Evaluation, config: EvalConfig, folder: Path, gates: list[Section], printer: Printer) -> None:
    from ..evaluation import build_score_page, render_scores, score_table
    from ..report import render
    from ..storage import write_json, write_text

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
