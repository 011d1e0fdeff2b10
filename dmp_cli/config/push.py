"""Options of ``dmp push``."""

from __future__ import annotations

from pathlib import Path

from .base import Options, option


class PushOptions(Options):
    """``dmp push``, beside its arguments."""

    license: str | None = option(
        "The licence of the patch, as the hub writes it, such as apache-2.0; the backbone's own may have a say in it.",
        metavar="NAME",
    )
    base_model: str | None = option(
        "The backbone's repository on the hub, which the card links to.",
        shown="where the backbone came from",
        metavar="USER/NAME",
    )
    grid: Path | None = option("A PNG of samples for the card.", shown="the run's newest grid")
    scores: Path | None = option("A folder of dmp eval, whose scores the card shows.")
    gates: str | None = option(
        "A folder of dmp inspect-gates, whose picture the card shows; none for no picture.",
        shown="drawn where the backbone is here",
        metavar="PATH|none",
    )
    private: bool = option("Make a repository that only you see, if one is made.", "--private", default=False)
    message: str | None = option("The message of the commit.", shown="the number of steps")
