"""Whether a plan is measured too."""

from __future__ import annotations

from .base import Options, option


class MeasureOptions(Options):
    """``dmp sample --dry-run``."""

    measure: bool = option(
        "With --dry-run: draw one chunk of up to four images, time it and keep nothing.",
        "--measure",
        default=False,
        shown=False,
    )
