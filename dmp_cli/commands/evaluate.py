"""``dmp eval``: score folders of samples against a folder of images or saved statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import EvalConfig
from ..errors import ConfigError
from . import options as opt
from .console import Printer
from .options import setting

_DEFAULT_OUTPUT = Path("scores")


@opt.with_options(opt.everywhere)
def evaluate(
    ctx: typer.Context,
    samples: Annotated[
        list[Path] | None,
        typer.Option("--samples", help="A folder of samples; give it again for more, the base first."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", help="Real images (folder or zip), or saved statistics (.npz).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The report's folder.", show_default=str(_DEFAULT_OUTPUT))
    ] = None,
    metrics: Annotated[
        str | None,
        setting(
            EvalConfig, "metrics", "Of fid, kid, is (Inception score) and prc (precision, recall), such as fid,kid."
        ),
    ] = None,
    features: Annotated[
        str | None, setting(EvalConfig, "features", "inception, clip, dinov2, pixels, digits, or a file.")
    ] = None,
    inception_weights: Annotated[
        Path | None,
        setting(EvalConfig, "inception_weights", "inception-2015-12-05.pt; else $DMP_INCEPTION, the cache."),
    ] = None,
    feature_weights: Annotated[
        Path | None, setting(EvalConfig, "feature_weights", "Folder of transformers, for clip and dinov2.")
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(
            "--crop",
            metavar="PIXELS|none",
            help="Cut the reference's central squares, as training does; none: take other sizes as they are.",
        ),
    ] = None,
    reference_vae: Annotated[
        str | None, setting(EvalConfig, "reference_vae", "A VAE that the reference's images go through first.")
    ] = None,
    save_stats: Annotated[
        Path | None, setting(EvalConfig, "save_stats", "Keep the reference's statistics in this .npz.")
    ] = None,
    bootstrap: Annotated[int | None, setting(EvalConfig, "bootstrap", "Resamples behind each spread; 0: none.")] = None,
    repeats: Annotated[
        int | None, setting(EvalConfig, "repeats", "Parts of consecutive images, scored apart, instead of resamples.")
    ] = None,
    kid_subsets: Annotated[int | None, setting(EvalConfig, "kid_subsets", "Subsets that KID averages over.")] = None,
    kid_subset_size: Annotated[int | None, setting(EvalConfig, "kid_subset_size", "Images in each of them.")] = None,
    batch_size: Annotated[int | None, setting(EvalConfig, "batch_size", "Images at a time.")] = None,
    gates: Annotated[
        Path | None, typer.Option("--gates", help="A folder of dmp inspect-gates, to show on the page.")
    ] = None,
    force: opt.Force = False,
) -> None:
    """Score samples. The first folder is the base that the others are compared with."""
    printer, options = Printer(ctx.params), dict(ctx.params)
    if not samples or reference is None:
        raise ConfigError(
            "nothing to score", hint="Give --samples DIR (once or more) and --reference DIR or STATS.npz."
        )
    if options["dtype"] not in (None, "fp32"):
        raise ConfigError(f"--dtype {options['dtype']}: scores are computed in fp32, so that they can be compared")
    options["metrics"] = metrics and tuple(part.strip() for part in metrics.split(","))
    options["samples"], options["crop"] = tuple(samples), _parse_crop(crop)
    wanted = opt.configure(EvalConfig, options)
    folder = output or _DEFAULT_OUTPUT
    if options["dry_run"]:
        printer.plan({"eval": wanted.model_dump(mode="json"), "output": str(folder)})
        return
    from ..runtime import refuse_many

    refuse_many("dmp eval")
    _score(wanted, folder, options, printer)


def _parse_crop(text: str | None) -> int | str | None:
    if text is None or text == "none":
        return text
    if not text.isdigit() or not int(text):
        raise ConfigError(f"--crop {text}: give pixels such as 256, or none")
    return int(text)


def _score(config: EvalConfig, folder: Path, options: dict[str, Any], printer: Printer) -> None:
    from ..evaluation import build_score_page, evaluate as score, gates_sections, render_scores, score_table
    from ..report import render
    from ..runtime import pick_device
    from ..storage import refuse_existing, write_json, write_text

    refuse_existing(folder / "report.json", force=options["force"])
    gates = gates_sections(options["gates"]) if options["gates"] else []
    evaluation = score(config, device=str(pick_device(options["device"] or "auto")), log=printer.note)
    report = evaluation.to_json()
    write_text(folder / "report.md", render_scores(evaluation))
    write_text(folder / "report.html", render(build_score_page(evaluation, config, gates=gates)))
    write_json(folder / "report.json", report)  # the last: where it is, the others are
    columns, rows = score_table(evaluation)
    printer.table(f"Scores against {config.reference}", columns, rows)
    for warning in evaluation.warnings:
        printer.warn(warning)
    printer.say(f"wrote {folder / 'report.html'}, report.md and report.json")
    printer.result(report)
