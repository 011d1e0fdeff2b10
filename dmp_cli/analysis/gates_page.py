"""The page of one look at a gate: what it does in a sentence, its maps, and its numbers block by block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..report import Page, Picture, Section, Table, short_names
from ..version import __version__
from .gate_comparison import COMPARED, compared_rows
from .gate_weights import GateStudy

_ABOUT_MAPS = (
    "Each map is a block: timesteps from image at the bottom to noise at the top, prompts from left to right. The "
    "colour is the gate's weight times the number of prompts, so that 1 is what every prompt has where none is "
    "preferred. All maps share one scale, that of the colour bar."
)
_ABOUT_USE = (
    "The entropy of the weights, from 0 where one prompt has all the weight to the logarithm of their number, and how "
    "many prompts that is. They are different quantities, so each map has its own colour bar, from the least to the "
    "most that is possible."
)


def build_gates_page(
    found: GateStudy,
    *,
    name: str,
    sentence: str,
    pictures: Mapping[str, bytes],
    apart: Mapping[str, Any] | None = None,
    experts: GateStudy | None = None,
) -> Page:
    """Build the content of ``gates.html``. ``pictures`` are PNGs by file name; ``apart`` is a comparison."""
    blocks = f"{len(found.blocks)} block{'s' if len(found.blocks) > 1 else ''}"
    sections = [
        Section(
            heading="Weights over timesteps",
            pictures=[_picture(pictures["gates.png"], f"Gate weights of {blocks}", caption=_ABOUT_MAPS)],
        ),
        Section(heading="Block by block", table=_table(found, "Every number is defined in summary.json.")),
        Section(
            heading="How weight is spread",
            pictures=[
                _picture(pictures["usage.png"], f"Entropy and effective prompts of {blocks}", caption=_ABOUT_USE)
            ],
        ),
    ]
    if "added.png" in pictures:
        alt = f"What is added beside the hidden state, in {blocks}"
        sections.append(Section(heading="What is added", pictures=[_picture(pictures["added.png"], alt)]))
    if apart is not None:
        sections.append(_comparison(apart, pictures["comparison.png"]))
    if experts is not None:
        sections.append(
            Section(heading="Low-rank experts", table=_table(experts, "Pictures are in the folder experts."))
        )
    return Page(
        title="What the gate does",
        answer=f"{sentence[0].upper()}{sentence[1:]}.",
        lead=f"The gate of {short_names([name])[0]}, evaluated at {len(found.timesteps):,} timesteps in {blocks}.",
        sections=sections,
        provenance={"Patch": name, "dmp": __version__},
    )


def _picture(png: bytes, alt: str, *, caption: str = "") -> Picture:
    return Picture(png=png, alt=f"{alt}, over the timesteps", caption=caption, wide=True)


def _table(found: GateStudy, caption: str) -> Table:
    return Table(columns=list(found.COLUMNS), rows=found.rows(), caption=caption)


def _comparison(apart: Mapping[str, Any], png: bytes) -> Section:
    names = short_names(apart["patches"])
    words = "Divergence in nats: 0 where both gates have equal weights, 0.693 where they use no prompt in common."
    return Section(
        heading="Compared with another patch",
        paragraphs=[f"{names[0]} and {names[1]}: on average {apart['mean']:.4f} nats apart."],
        table=Table(columns=COMPARED, rows=compared_rows(apart), caption=words),
        pictures=[_picture(png, "Divergence of two gates")],
    )
