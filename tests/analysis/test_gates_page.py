"""The page of a gate: its sentence first, then maps of which the caption says the scale."""

from __future__ import annotations

import numpy as np

from dmp_cli.analysis.gate_weights import study
from dmp_cli.analysis.gates_page import build_gates_page
from dmp_cli.report.html import render
from tests.report.test_html import png


def test_the_page_begins_with_what_the_gate_does() -> None:
    weights = np.random.default_rng(0).dirichlet([0.4] * 16, size=(20, 3))
    found = study(weights, timesteps=np.arange(20))
    pictures = {"gates.png": png(), "usage.png": png(), "comparison.png": png()}
    blocks = [{"block": 0, "mean": 0.1, "largest": 0.25, "largest_at_timestep": 7}]
    apart = {"patches": ["a/p", "b/p"], "mean": 0.1, "blocks": blocks}
    about = {"name": "run/p", "sentence": "the gate chooses", "pictures": pictures}
    page = build_gates_page(found, **about, apart=apart)
    assert page.answer == "The gate chooses."
    maps, numbers, _, compared = page.sections
    assert page.lead == "The gate of p, evaluated at 20 timesteps in 3 blocks."
    assert page.provenance["Patch"] == "run/p"
    assert "share one scale" in maps.pictures[0].caption
    assert numbers.table is not None
    assert list(numbers.table.rows) == found.rows()
    assert compared.table is not None
    assert list(compared.table.rows) == [["0", "0.1000", "0.2500", "7"]]
    assert render(page).count('src="data:image/png') == 3
    assert len(build_gates_page(found, **about, experts=found).sections) == 4
    assert len(build_gates_page(found, **about).sections) == 3
