"""The page of a run's held-out loss: over the steps, and by band of timesteps, trained and bare network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..report import Page, Picture, Section, Table, draw_curves, short_names
from ..version import __version__
from .held_out_answer import answer_of_losses, answer_of_run, intervals_of_losses, intervals_of_run

Entry = dict[str, Any]  # the entry ``held_out`` of a line of log.jsonl


def build_held_out_page(lines: Sequence[tuple[int, Entry]], *, method: str) -> Page:
    """Build the content of ``held-out.html`` from the measurements of a run: step and entry of each."""
    sections = [] if not lines else [_curve(lines), _bands(*lines[-1])]
    return Page(
        title="Held-out loss",
        answer=answer_of_run(lines),
        intervals=intervals_of_run(lines),
        lead=_lead(lines),
        sections=sections,
        provenance={"Method": method, "Measurements": str(len(lines)), "dmp": __version__},
    )


def build_loss_page(entries: Mapping[str, Entry], about: Mapping[str, Any], *, adapters: int = 0) -> Page:
    """Build the content of ``loss.html``: one entry for each patch, by its name, all of the same draws.

    The last ``adapters`` of them are of adapters.
    """
    patches = len(entries) - adapters
    counts = ["1 patch" if patches == 1 else f"{patches} patches"] if patches else []
    counts += ["1 adapter" if adapters == 1 else f"{adapters} adapters"] if adapters else []
    several, kind = ", ".join(counts), "patch or adapter" if adapters else "patch"
    columns = [kind, "loss", "bare", "difference", "95 % interval"]
    names = dict(zip(entries, short_names(list(entries)), strict=True))
    rows = [[names[path], *_row({"from": 0, "to": 0, **entry})[1:]] for path, entry in entries.items()]
    caption = "Over all timesteps; the difference is paired, draw by draw."
    table = Table(columns=columns, rows=rows, caption=caption, hover=list(entries))
    whole = Section(heading="Over all timesteps", table=table)
    bands = [
        Section(
            heading=f"By timestep: {names[path]}", table=_band_table(entry["bands"]), pictures=_band_pictures(entry)
        )
        for path, entry in entries.items()
    ]
    return Page(
        title="Held-out loss",
        answer=answer_of_losses(entries, draws=about["val_draws"]),
        intervals=intervals_of_losses(entries),
        lead=f"{several} and the bare backbone, measured on the same {about['val_draws']:,} draws of images, timesteps "
        f"and noise. An interval below zero means that the {kind} predicts better on held-out images.",
        sections=[whole, *bands],
        provenance={"Held-out images": f"{about['images']:,}, fingerprint {about['val_data']}", "dmp": __version__},
    )


def _lead(lines: Sequence[tuple[int, Entry]]) -> str:
    if not lines:
        return "Nothing was measured yet."
    step, entry = lines[-1]
    if entry.get("difference") is None:
        return f"After step {step:,} the loss on held-out images is {entry['loss']:.6f}."
    return (
        f"After step {step:,} the loss on held-out images is {entry['loss']:.6f}, that of the bare network "
        f"{entry['base']:.6f}."
    )


def _curve(lines: Sequence[tuple[int, Entry]]) -> Section:
    steps, entries = [step for step, _ in lines], [entry for _, entry in lines]
    if all(entry.get("difference") is not None for entry in entries):
        label, name = "held-out loss minus that of the bare network, %", "difference"
        png = _draw_differences(steps, entries, xlabel="training step", name=name)
    else:
        label = "held-out loss"
        png = draw_curves({label: (steps, [entry["loss"] for entry in entries])}, xlabel="training step", ylabel=label)
    return Section(
        heading="Over the steps",
        paragraphs=[
            "Every measurement computes the same draws: the same images, timesteps and noise, for the trained network "
            "and for the bare one. Below zero, the trained network predicts better on held-out images. The "
            "band is the 95 % interval."
        ],
        pictures=[Picture(png=png, alt=f"{label} over steps")],
    )


def _bands(step: int, entry: Entry) -> Section:
    return Section(
        heading=f"By timestep, after step {step:,}",
        paragraphs=[
            f"{_about_order(entry['bands'])} A mean over all of them hides that a method may win at some and lose at "
            "others."
        ],
        table=_band_table(entry["bands"]),
        pictures=_band_pictures(entry),
    )


def _about_order(bands: Sequence[Entry]) -> str:
    """Which end of the range has the noise. The levels of a flow are not whole, and SiT's fall towards the noise."""
    if isinstance(bands[0]["to"], float):
        return "The first levels have little noise, the last ones much."
    return "Low timesteps have little noise, high ones much."


def _band_table(bands: Sequence[Entry]) -> Table:
    return Table(
        columns=["timesteps", "loss", "bare", "difference", "95 % interval"],
        rows=[_row(band) for band in bands],
        caption="Mean squared error of what the network predicts; the difference is paired, draw by draw.",
    )


def _band_pictures(entry: Entry) -> list[Picture]:
    if entry.get("difference") is None:
        return []
    bands = entry["bands"]
    middles = [(band["from"] + band["to"]) / 2 for band in bands]
    png = _draw_differences(middles, bands, xlabel="timestep", name="difference")
    return [Picture(png=png, alt="Difference of the held-out loss from the bare network's, over timesteps")]


def _draw_differences(x: Sequence[float], entries: Sequence[Entry], *, xlabel: str, name: str) -> bytes:
    """A curve of differences in percent of the bare network's loss, with its interval, above a line at zero."""
    percent = [100 / entry["base"] for entry in entries]
    ends = [
        [factor * entry["interval"][side] for factor, entry in zip(percent, entries, strict=True)] for side in (0, 1)
    ]
    values = [factor * entry["difference"] for factor, entry in zip(percent, entries, strict=True)]
    series = {name: (x, values), "bare": (x, [0.0] * len(values))}
    return draw_curves(
        series, xlabel=xlabel, ylabel="difference, % of the bare network's loss", spans={name: (ends[0], ends[1])}
    )


def _row(band: Entry) -> list[str]:
    where = f"{band['from']} to {band['to']}"
    if band.get("difference") is None:
        return [where, f"{band['loss']:.6f}", "–", "–", "–"]
    low, high = band["interval"]
    losses = [f"{band['loss']:.6f}", f"{band['base']:.6f}", f"{band['difference']:+.6f}"]
    return [where, *losses, f"{low:+.6f} to {high:+.6f}"]
