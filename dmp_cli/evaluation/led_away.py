"""Samples that guidance led away from another version of their network: how far, and which scores show what it costs.

A Fréchet distance alone rewards a scale that loses variety or details. Precision and recall show which of both it is.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any

from ..sampling import read_record

LEAST = {"fid": 2, "prc": 4}  # images that a metric needs on either side
_EXTRA = "torch_fidelity"  # the library of the extra "metrics", which computes precision and recall


def scale_of(made: dict[str, Any] | None) -> float | None:
    """W of ``dmp sample --against-scale``, where ``made`` is a samples.json; None: drawn against no other version."""
    record = read_record(made)
    scale = record.sample.get("against_scale")
    return float(scale) if record.made.get("against") and isinstance(scale, int | float) else None


def metrics_for(metrics: tuple[str, ...], records: Iterable[dict[str, Any] | None]) -> tuple[str, ...]:
    """``metrics``, and precision and recall where some samples were led away and the library for them is there."""
    led = any(scale_of(made) is not None for made in records)
    return (*metrics, "prc") if led and would_add(metrics) else metrics


def would_add(metrics: tuple[str, ...]) -> bool:
    """Whether precision and recall would be added to ``metrics`` for samples that were led away."""
    return "prc" not in metrics and importlib.util.find_spec(_EXTRA) is not None
